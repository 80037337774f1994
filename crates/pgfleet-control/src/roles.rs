//! The names of a service's roles and databases on a server.

use pgfleet_postgres::name::short_name;

/// The role that owns pgfleet's own schema in every target; nobody logs in as it.
pub const META: &str = "pgfleet_meta";

/// The four roles of a service. They exist once per server and serve all its databases there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// Owns everything; nobody logs in as it.
    pub owner: String,
    /// Logs in and acts as the owner.
    pub migrator: String,
    /// Logs in, reads and writes rows.
    pub app: String,
    /// Logs in, reads rows.
    pub readonly: String,
    twins: [String; 3],
}

/// What a login role of a service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// Reads and writes rows.
    App,
    /// Reads rows.
    Readonly,
    /// Changes the schema.
    Migrator,
}

impl Login {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::App, Self::Readonly, Self::Migrator];

    /// The word on the command line and in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Readonly => "readonly",
            Self::Migrator => "migrator",
        }
    }
}

impl std::str::FromStr for Login {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|login| login.word() == text)
            .ok_or_else(|| format!("unknown role `{text}` (app, readonly, migrator)"))
    }
}

impl Roles {
    /// Returns the role names of a service; long ones are shortened so that they stay different.
    pub fn of(service: &str) -> Self {
        Self {
            owner: short_name(service, "_owner"),
            migrator: short_name(service, "_migrator"),
            app: short_name(service, "_app"),
            readonly: short_name(service, "_readonly"),
            twins: Login::ALL.map(|login| short_name(service, &format!("_{}_b", login.word()))),
        }
    }

    /// Returns the name of a login role's twin: a second login with the same rights, a member of the
    /// first, made when a password is rotated.
    pub fn twin(&self, login: Login) -> &str {
        match login {
            Login::App => &self.twins[0],
            Login::Readonly => &self.twins[1],
            Login::Migrator => &self.twins[2],
        }
    }

    /// Returns both roles of a login: the one that holds the rights, and its twin.
    pub fn both(&self, login: Login) -> [&str; 2] {
        [self.login(login), self.twin(login)]
    }

    /// Returns the name of a login role.
    pub fn login(&self, login: Login) -> &str {
        match login {
            Login::App => &self.app,
            Login::Readonly => &self.readonly,
            Login::Migrator => &self.migrator,
        }
    }
}
