//! What is not as the control database says: half-made tenants, databases without a tenant, tenants
//! without their database, roles without a service, what is left of templates.
//!
//! What can be mended without losing anything is mended. Everything else is reported, with what to do.

mod databases;
mod half_made;
mod look;
mod roles;

use std::sync::Arc;

use pgfleet_migrate::Observer;
use serde::Serialize;

use super::Tenant;
use super::bench::Bench;
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::solution::Solution;

use look::Look;

/// What may be done about what is found.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub struct Mending {
    /// Only looks.
    pub dry_run: bool,
    /// Closes databases that are marked as a tenant's, and of which nobody knows or to which nobody is led.
    pub close: bool,
    /// Drops them, and templates that no shape needs any more.
    pub drop: bool,
    /// Makes databases again that are gone, empty but for their seeds.
    pub make: bool,
}

/// The words for what was found, a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A tenant that was asked for and is not finished.
    HalfMade,
    /// A tenant that was to be deleted and is not closed.
    HalfDeleted,
    /// A tenant that was to come back from quarantine and has not.
    HalfRestored,
    /// A closed database whose time has come.
    Due,
    /// A tenant's database that is not there.
    MissingDatabase,
    /// Another database under the name of a tenant's.
    OtherDatabase,
    /// A tenant's database that somebody closed.
    ClosedDatabase,
    /// A database that was to be closed, since no string leads there any more, and is open.
    HalfClosed,
    /// An open database that was made for a tenant, and to which no string leads.
    UnledDatabase,
    /// A database that is marked as a tenant's, and that no tenant has.
    DatabaseWithoutTenant,
    /// Roles of a service that is not in the manifest.
    RoleWithoutService,
    /// What a process left that died while it made a template.
    TemplateLeft,
    /// A template of services that share a database no more.
    TemplateWithoutShape,
    /// A server that could not be looked at.
    Unreachable,
}

impl Kind {
    /// Returns the word.
    pub fn word(self) -> &'static str {
        match self {
            Self::HalfMade => "half-made",
            Self::HalfDeleted => "half-deleted",
            Self::HalfRestored => "half-restored",
            Self::Due => "due",
            Self::MissingDatabase => "missing-database",
            Self::OtherDatabase => "other-database",
            Self::ClosedDatabase => "closed-database",
            Self::HalfClosed => "half-closed",
            Self::UnledDatabase => "unled-database",
            Self::DatabaseWithoutTenant => "database-without-tenant",
            Self::RoleWithoutService => "role-without-service",
            Self::TemplateLeft => "template-left",
            Self::TemplateWithoutShape => "template-without-shape",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The tenant, database or service.
    pub subject: String,
    /// The server, when it is about one.
    pub server: Option<String>,
    /// What was found.
    pub found: String,
    /// What was done about it; none when it is as it was.
    pub done: Option<String>,
    /// Why it could not be mended.
    pub error: Option<String>,
    /// Statements for somebody to run.
    pub statements: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Finding {
    fn new(kind: Kind, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            kind,
            subject: subject.into(),
            server: None,
            found: found.into(),
            done: None,
            error: None,
            statements: Vec::new(),
            hint: None,
        }
    }

    fn at(mut self, server: &str) -> Self {
        self.server = Some(server.to_owned());
        self
    }

    fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Notes how mending ended; what was not mended keeps its hint.
    fn ended(mut self, result: Result<impl Into<String>, Error>) -> Self {
        match result {
            Ok(done) => {
                self.done = Some(done.into());
                self.hint = None;
            }
            Err(error) => {
                let hint = error.hint().map(str::to_owned);
                let texts: Vec<String> =
                    std::iter::once(error.to_string()).chain(error.causes().iter().cloned()).collect();
                self.error = Some(texts.join(": "));
                self.hint = hint.or(self.hint);
            }
        }
        self
    }
}

/// One who looks for what is wrong, and mends what he may.
struct Mender<'a> {
    solution: &'a Solution,
    how: Mending,
    observer: &'a Arc<dyn Observer>,
    bench: Bench,
    findings: Vec<Finding>,
}

impl Solution {
    /// Finds what is not as the control database says, and mends what can be mended: half-made tenants
    /// are finished, half-deleted ones closed, due databases dropped.
    ///
    /// Nothing is dropped that is not marked as this solution's.
    ///
    /// # Errors
    ///
    /// The control database cannot be read. What could not be mended says so in its finding.
    pub async fn mend_tenants(&self, how: Mending, observer: &Arc<dyn Observer>) -> Result<Vec<Finding>, Error> {
        let bench = Bench::open(self, false).await?;
        let mut mender = Mender { solution: self, how, observer, bench, findings: Vec::new() };
        let done = Box::pin(mender.all()).await;
        mender.bench.close().await;
        done.map(|()| mender.findings)
    }
}

impl Mender<'_> {
    async fn all(&mut self) -> Result<(), Error> {
        self.half_made().await?;
        self.due().await?;
        let names: Vec<String> = self.solution.servers().map(|(name, _)| name.to_owned()).collect();
        for server in names {
            let tenants = self.tenants().await?;
            match self.look(&server).await {
                Ok(look) => {
                    self.own_databases(&server, &look, &tenants).await?;
                    self.strange_databases(&server, &look, &tenants).await?;
                    self.templates(&server, &look).await?;
                    self.roles(&server).await?;
                }
                Err(error) => {
                    let finding = Finding::new(Kind::Unreachable, &server, "it cannot be looked at").at(&server);
                    self.findings.push(finding.ended(Err::<String, _>(error)));
                }
            }
        }
        self.findings.sort_by(|one, other| (one.kind, &one.subject).cmp(&(other.kind, &other.subject)));
        Ok(())
    }

    fn catalogue(&self) -> &Catalogue {
        &self.bench.catalogue
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, Error> {
        self.solution.read_tenants(self.catalogue().connection(), None).await
    }

    async fn look(&mut self, server: &str) -> Result<Look, Error> {
        let admin = self.bench.admin(self.solution, server).await?;
        Look::at(&admin.connection, &self.solution.manifest.solution.name).await
    }
}
