//! The statements for roles: logins and their twins, memberships, limits, settings.

use std::collections::BTreeSet;

use pgfleet_postgres::{quote_ident, quote_literal};

use super::budget::Shares;
use super::desired::{DesiredServer, Resident};
use super::state::{RoleState, ServerState};
use super::steps::{Step, setting};
use crate::roles::{Login, META, Roles};

/// Rights over the server's files, programs or all data that no role of a service may inherit.
const DANGEROUS: [&str; 7] = [
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
    "pg_maintain",
    "pg_create_subscription",
];

/// What is known of the passwords of login roles.
#[derive(Debug, Clone, Default)]
pub struct Passwords {
    /// Roles that have one.
    pub known: BTreeSet<String>,
    /// Roles whose password does not work and must be set again.
    pub failing: BTreeSet<String>,
}

impl Passwords {
    /// Returns whether a role may log in. A login is two roles: who has a password may, the other one
    /// may not; before there is any, it is the first.
    pub fn enables(&self, roles: &Roles, login: Login, role: &str) -> bool {
        let [first, twin] = roles.both(login);
        self.known.contains(role) || (role == first && !self.known.contains(twin))
    }
}

/// What the steps for roles are made from.
pub(super) struct Sight<'a> {
    pub(super) desired: &'a DesiredServer,
    pub(super) state: &'a ServerState,
    pub(super) passwords: &'a Passwords,
    pub(super) ours: &'a BTreeSet<&'a str>,
    pub(super) shares: Option<Shares>,
}

/// One role as it should be.
struct Wanted<'a> {
    service: &'a str,
    role: &'a str,
    login: bool,
    limit: Option<u32>,
    /// The roles that it may be a member of.
    groups: Vec<&'a str>,
}

impl Sight<'_> {
    /// Adds the steps for all roles of all services.
    pub(super) fn all(&self, steps: &mut Vec<Step>) {
        for Resident { service, roles, .. } in &self.desired.residents {
            let owner = Wanted { service, role: &roles.owner, login: false, limit: None, groups: Vec::new() };
            self.role(steps, &owner);
            for login in Login::ALL {
                self.login(steps, service, roles, login);
            }
            self.member(steps, &roles.migrator, &roles.owner);
            setting(steps, self.state, &roles.readonly, None, "default_transaction_read_only", "on");
            if self.twin_is_there(roles, Login::Readonly) {
                let twin = roles.twin(Login::Readonly);
                setting(steps, self.state, twin, None, "default_transaction_read_only", "on");
            }
        }
        for visitor in &self.desired.visitors {
            self.login(steps, &visitor.service, &visitor.roles, Login::App);
        }
    }

    /// Adds the steps that give the logins of a service their place: a migrator acts as the owner, and all
    /// look into the service's schema first.
    ///
    /// A service that has data in tenants' databases has one schema in all its databases, so this is set
    /// for the role itself, and a tenant's database needs no settings. That of another service is set
    /// for its database.
    pub(super) fn places(&self, steps: &mut Vec<Step>, resident: &Resident) {
        let roles = &resident.roles;
        let path = (resident.schema != "public").then(|| format!("{}, public", quote_ident(&resident.schema)));
        let home = self.desired.databases.iter().find(|database| database.service == resident.service);
        let home = home.map(|database| database.name.as_str());
        for login in Login::ALL {
            let twin = self.twin_is_there(roles, login).then(|| roles.twin(login));
            for role in [roles.login(login)].into_iter().chain(twin) {
                let owner = (login == Login::Migrator).then_some(roles.owner.as_str());
                let wanted = [("role", owner), ("search_path", path.as_deref())];
                for (name, value) in wanted.into_iter().filter_map(|(name, value)| Some((name, value?))) {
                    // One that is set for the database wins, so it has to be right, too.
                    let beside = home.filter(|home| self.state.setting(role, Some(home), name).is_some());
                    if resident.tenants {
                        setting(steps, self.state, role, None, name, value);
                    }
                    if let Some(home) = if resident.tenants { beside } else { home } {
                        setting(steps, self.state, role, Some(home), name, value);
                    }
                }
            }
        }
    }

    /// Whether a login has a twin, or gets one now.
    pub(super) fn twin_is_there(&self, roles: &Roles, login: Login) -> bool {
        let twin = roles.twin(login);
        self.passwords.known.contains(twin) || self.state.roles.contains_key(twin)
    }

    fn login(&self, steps: &mut Vec<Step>, service: &str, roles: &Roles, login: Login) {
        let [first, twin] = roles.both(login);
        let shares = self.shares.as_ref().filter(|_| login == Login::App);
        let limit = shares.and_then(|shares| shares.limit(service));
        let wanted =
            |role, groups| Wanted { service, role, login: self.passwords.enables(roles, login, role), limit, groups };
        let owner = (login == Login::Migrator).then_some(roles.owner.as_str());
        self.role(steps, &wanted(first, owner.into_iter().collect()));
        if self.twin_is_there(roles, login) {
            self.role(steps, &wanted(twin, vec![first]));
            self.member(steps, twin, first);
            // What it makes belongs to the first, and row security sees the first. A migrator acts as
            // the owner instead: see `places`.
            if login != Login::Migrator {
                setting(steps, self.state, twin, None, "role", first);
            }
        }
    }

    fn role(&self, steps: &mut Vec<Step>, wanted: &Wanted<'_>) {
        let (role, login) = (wanted.role, wanted.login);
        let quoted = quote_ident(role);
        let word = if login { "LOGIN" } else { "NOLOGIN" };
        let present = self.state.roles.get(role);
        let limit = wanted.limit.map(|limit| format!("CONNECTION LIMIT {limit}"));
        match present {
            None => {
                let limit = limit.map(|limit| format!(" {limit}")).unwrap_or_default();
                let password = if login { " PASSWORD :password" } else { "" };
                let mut step = Step::new(format!("CREATE ROLE {quoted} {word}{limit}{password}"));
                step.password_of = login.then(|| role.to_owned());
                steps.push(step);
            }
            Some(found) => {
                if login != found.login {
                    steps.push(Step::new(format!("ALTER ROLE {quoted} {word}")));
                }
                if let Some(limit) = limit.filter(|_| wanted.limit.map(i64::from) != Some(found.limit)) {
                    steps.push(Step::new(format!("ALTER ROLE {quoted} {limit}")));
                }
                // Taking these back is a superuser's right; `isolation verify` names what we leave.
                let takes = |power: &str| self.state.superuser || matches!(power, "CREATEDB" | "CREATEROLE");
                for power in found.powers.iter().filter(|power| takes(power)) {
                    steps.push(Step::new(format!("ALTER ROLE {quoted} NO{power}")));
                }
                if login && self.passwords.failing.contains(role) {
                    let mut step = Step::new(format!("ALTER ROLE {quoted} PASSWORD :password"));
                    step.password_of = Some(role.to_owned());
                    steps.push(step);
                }
            }
        }
        let mark = self.desired.mark(wanted.service);
        if present.is_none_or(|found: &RoleState| found.comment != mark) {
            steps.push(Step::new(format!("COMMENT ON ROLE {quoted} IS {}", quote_literal(&mark))));
        }
        for ((member, group), grantors) in self.state.memberships.iter().filter(|((member, _), _)| member == role) {
            let ours = self.ours.contains(group.as_str()) || group == META;
            let dangerous =
                DANGEROUS.contains(&group.as_str()) && (self.state.superuser || self.state.version < 160_000);
            if !wanted.groups.contains(&group.as_str()) && (ours || dangerous) {
                self.revoke_membership(steps, member, group, grantors);
            }
        }
    }

    fn member(&self, steps: &mut Vec<Step>, member: &str, group: &str) {
        if !self.state.memberships.contains_key(&(member.to_owned(), group.to_owned())) {
            steps.push(Step::new(format!("GRANT {} TO {}", quote_ident(group), quote_ident(member))));
        }
    }

    /// Takes a role out of a group.
    ///
    /// From 16 on each grant has to be taken back in the name of who gave it, and only a superuser may
    /// do that for others; what stays is named by `isolation verify`.
    fn revoke_membership(&self, steps: &mut Vec<Step>, member: &str, group: &str, grantors: &[String]) {
        let sql = format!("REVOKE {} FROM {}", quote_ident(group), quote_ident(member));
        if self.state.version < 160_000 {
            steps.push(Step::new(sql));
            return;
        }
        for grantor in grantors.iter().filter(|grantor| self.state.superuser || **grantor == self.state.admin) {
            steps.push(Step::new(format!("{sql} GRANTED BY {}", quote_ident(grantor))));
        }
    }
}
