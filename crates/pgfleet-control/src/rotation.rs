//! New passwords without downtime: two roles per login, of which one is handed out.
//!
//! PostgreSQL keeps one password per role, so a login that must never be refused needs two roles. The
//! first, `<service>_app`, holds the rights. Its twin, `<service>_app_b`, is made by the first rotation
//! as a member of it. Rotating gives the role that is not handed out a new password and hands it out;
//! the old one goes on working until [`Solution::finish_rotation`].
//!
//! What is kept decides what may log in: provisioning lets exactly those roles in whose password is
//! known. So each step is one change of what is kept and one provisioning, and a process that dies in
//! between leaves a login that works.

use pgfleet_postgres::{Purpose, Type, connect};
use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::manifest::Service;
use crate::provision::DesiredServer;
use crate::roles::{Login, Roles};
use crate::solution::Solution;
use crate::vault::Credential;

/// A login of a service, and which of its two roles is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// The server.
    pub server: String,
    /// The service.
    pub service: String,
    /// What the login is for.
    pub login: Login,
    /// The role that is handed out.
    pub active: String,
    /// The role with the old password, which still works; none when no rotation is under way.
    pub retiring: Option<String>,
    /// How many sessions the role with the old password has.
    pub sessions: u64,
}

impl Solution {
    /// Returns where the rotation of a service's login stands, on each server where it has one.
    ///
    /// # Errors
    ///
    /// Credentials or sessions cannot be read.
    pub async fn rotations(&mut self, service: &str, login: Login) -> Result<Vec<Rotation>, Error> {
        self.reread_credentials().await?;
        let mut found = Vec::new();
        for (server, service) in self.homes(service, login)? {
            let roles = Roles::of(&service);
            let Some((active, _)) = self.vault().active(&server, &roles, login) else { continue };
            let active = active.to_owned();
            let retiring = self.vault().retiring(&server, &roles, login).map(str::to_owned);
            let sessions = match &retiring {
                Some(role) => self.sessions(&server, role).await?,
                None => 0,
            };
            found.push(Rotation { server, service, login, active, retiring, sessions });
        }
        Ok(found)
    }

    /// Gives a service's login a new password and hands it out from now on.
    ///
    /// The old password goes on working, and so do its sessions, until
    /// [`finish_rotation`](Self::finish_rotation). One that was retiring already stops working: its role
    /// is the one that gets the new password.
    ///
    /// # Errors
    ///
    /// A server cannot be reached or refuses; then the password that was handed out before still is.
    pub async fn rotate(&mut self, service: &str, login: Login) -> Result<Vec<Rotation>, Error> {
        self.provision(false).await?;
        let homes = self.homes(service, login)?;
        for (server, service) in &homes {
            let roles = Roles::of(service);
            self.reread_credentials().await?;
            let Some((active, _)) = self.vault().active(server, &roles, login) else { continue };
            let [first, twin] = roles.both(login);
            let other = if active == first { twin } else { first };
            self.keeper().prepare(server, other, Credential::generate()).await?;
            self.reread_credentials().await?;
            self.provision(false).await?;
            self.try_login(server, service, other).await?;
            self.keeper().activate(server, other).await?;
            self.note("rotate", service, server, other).await?;
        }
        self.reread_credentials().await?;
        // Where a service reads the password together with where a tenant's database is.
        self.share_strings(false).await?;
        self.rotations(service, login).await
    }

    /// Lets the old password of a service's login in no more; sessions that it opened stay.
    ///
    /// # Errors
    ///
    /// A server cannot be reached or refuses.
    pub async fn finish_rotation(&mut self, service: &str, login: Login) -> Result<Vec<Rotation>, Error> {
        let before = self.rotations(service, login).await?;
        // A rotation that stopped in the middle may have left the old one in there.
        self.share_strings(false).await?;
        for rotation in &before {
            let Some(role) = &rotation.retiring else { continue };
            self.keeper().forget(&rotation.server, role).await?;
            self.note("finish rotation", &rotation.service, &rotation.server, role).await?;
        }
        self.reread_credentials().await?;
        self.provision(false).await?;
        Ok(before)
    }

    /// Lists the servers where a service has a login of this kind: its own, those that hold tenants'
    /// databases, and for the application those that it visits.
    fn homes(&self, service: &str, login: Login) -> Result<Vec<(String, String)>, Error> {
        let service: &Service = self.services(&[service.to_owned()])?[0];
        let mut homes = Vec::new();
        for (server, _) in self.servers() {
            let desired = DesiredServer::of(&self.manifest, server);
            if desired.logins().any(|(name, _, kind)| name == service.name && kind == login) {
                homes.push((server.to_owned(), service.name.clone()));
            }
        }
        Ok(homes)
    }

    async fn sessions(&self, server: &str, role: &str) -> Result<u64, Error> {
        let failed = |error: &pgfleet_postgres::Error| {
            Error::postgres(format!("cannot look at the sessions of server {server}"), error)
        };
        let admin = &self.server(server).admin;
        let connection = connect(admin, &Purpose::new("pgfleet provision")).await.map_err(|error| failed(&error))?;
        let counted = connection
            .query("SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usename = $1", &[(&role, Type::TEXT)])
            .await;
        connection.close().await;
        let rows = counted.map_err(|error| failed(&error))?;
        let count: i64 = rows.first().map_or(0, |row| row.get(0));
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// A password is handed out only after it let somebody in, over the way that services take.
    ///
    /// Where the service may enter no database yet, because there is no tenant's, the server itself is
    /// asked: it refuses a wrong password before it refuses the database.
    async fn try_login(&self, server: &str, service: &str, role: &str) -> Result<(), Error> {
        let Some(credential) = self.credential(server, role) else {
            return Err(Error::new(ErrorKind::Failed, format!("there is no password for role {role}")));
        };
        let desired = DesiredServer::of(&self.manifest, server);
        let own = desired.databases.iter().find(|database| database.service == service);
        let visited = || desired.databases.iter().find(|database| database.guests.iter().any(|g| g.service == service));
        let database = own.or_else(visited).map(|database| database.name.as_str());
        let connected = self.server(server);
        let direct = database.is_none() || Roles::of(service).both(Login::Migrator).contains(&role);
        let way = if direct { &connected.admin } else { &connected.services };
        let name = database.unwrap_or(connected.admin.database());
        let address = way.with_database(name).with_user(role, Some(credential.password.clone()));
        match connect(&address, &Purpose::new("pgfleet rotation")).await {
            Ok(connection) => connection.close().await,
            Err(error) if database.is_none() && error.sql_state() == Some("42501") => {}
            Err(error) => {
                let message = format!("role {role} does not get into {name} with its new password");
                return Err(Error::postgres(message, &error)
                    .hinted("the old password is still handed out; run the command again"));
            }
        }
        Ok(())
    }
}
