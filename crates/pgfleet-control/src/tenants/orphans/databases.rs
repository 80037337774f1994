//! Databases without a tenant, tenants without their database, templates that nobody needs.

use std::collections::BTreeSet;

use pgfleet_postgres::{Type, quote_ident};

use super::look::{Look, Mark};
use super::{Finding, Kind, Mender};
use crate::error::Error;
use crate::physical::Physical;
use crate::templates::{self, Shape};
use crate::tenants::closing::close;
use crate::tenants::dropping::{drop_marked, forget};
use crate::tenants::life::Half;
use crate::tenants::workshop::Workshop;
use crate::tenants::{OwnDatabase, Tenant, TenantState};

impl Mender<'_> {
    /// Compares the databases that were made for tenants with what is on the server.
    pub(super) async fn own_databases(&mut self, server: &str, look: &Look, tenants: &[Tenant]) -> Result<(), Error> {
        self.note_sizes(server).await?;
        for tenant in tenants {
            for own in tenant.databases.iter().filter(|own| own.server == server) {
                // What was never made is the business of who goes on with the tenant.
                let Some(oid) = own.oid else { continue };
                let finding = match look.named(&own.database) {
                    Some(present) if present.oid == oid && !present.open && own.state == "open" => {
                        let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true;", quote_ident(&own.database));
                        let found = format!("it is tenant {}'s, and somebody closed it", tenant.name);
                        let mut finding = Finding::new(Kind::ClosedDatabase, &own.database, found).at(server);
                        finding.statements.push(sql);
                        finding
                    }
                    Some(present) if present.oid == oid && present.open && is_half_closed(own) => {
                        self.half_closed(server, tenant, own).await?
                    }
                    Some(present) if present.oid == oid && is_unled(tenant, own, tenants) => {
                        self.unled(server, tenant, own).await?
                    }
                    Some(present) if present.oid == oid => continue,
                    Some(_) => {
                        let found = format!("it is not the one that was made for tenant {}", tenant.name);
                        let hint = format!(
                            "if it is the tenant's now: pgfleet tenant set-connection {} dbname={}",
                            tenant.name, own.database
                        );
                        Finding::new(Kind::OtherDatabase, &own.database, found).at(server).hinted(hint)
                    }
                    None => self.missing(server, look, tenant, own).await,
                };
                self.findings.push(finding);
            }
        }
        Ok(())
    }

    /// Closes a database of which it is written that it is closed.
    async fn half_closed(&mut self, server: &str, tenant: &Tenant, own: &OwnDatabase) -> Result<Finding, Error> {
        let found = format!("it was to be closed, since tenant {} has it no more, and is open still", tenant.name);
        let finding = Finding::new(Kind::HalfClosed, &own.database, found).at(server);
        if self.how.dry_run {
            return Ok(finding);
        }
        if !self.bench.try_hold(&tenant.name).await? {
            return Ok(finding.hinted("another process works on it just now"));
        }
        let place = [(own.server.clone(), own.database.clone())];
        let closed = Box::pin(self.solution.close_held(&mut self.bench, &tenant.name, &place)).await;
        self.bench.release(&tenant.name).await;
        Ok(finding.ended(closed.map(|_| "it is closed now")))
    }

    /// Closes a database to which no string leads, when that is wanted.
    async fn unled(&mut self, server: &str, tenant: &Tenant, own: &OwnDatabase) -> Result<Finding, Error> {
        let name = &tenant.name;
        let found = format!("it was made for tenant {name}, and no string leads there any more");
        let finding = Finding::new(Kind::UnledDatabase, &own.database, found).at(server).hinted(format!(
            "close it, and have it dropped after a while: pgfleet tenant mend --close; or lead the tenant there: \
             pgfleet tenant set-connection {name} dbname={}",
            own.database
        ));
        if self.how.dry_run || !self.how.close {
            return Ok(finding);
        }
        if !self.bench.try_hold(name).await? {
            return Ok(finding.hinted("another process works on it just now"));
        }
        let closed = Box::pin(self.solution.close_all_unled(&mut self.bench, name)).await;
        self.bench.release(name).await;
        Ok(finding.ended(closed.map(|_| "it is closed now")))
    }

    /// Says what is about a tenant's database that is not there, and makes it again when that is wanted.
    async fn missing(&mut self, server: &str, look: &Look, tenant: &Tenant, own: &OwnDatabase) -> Finding {
        let name = &tenant.name;
        let renamed = own.oid.and_then(|oid| look.of_oid(oid));
        let found = match renamed {
            Some(other) => format!("tenant {name}'s database is called {} now", other.name),
            None => format!("tenant {name}'s database is not there"),
        };
        let mut finding = Finding::new(Kind::MissingDatabase, &own.database, found).at(server);
        if let Some(other) = renamed {
            let (from, to) = (quote_ident(&other.name), quote_ident(&own.database));
            finding.statements.push(format!("ALTER DATABASE {from} RENAME TO {to};"));
            return finding;
        }
        if own.state != "open" {
            // It was to be dropped, and somebody did.
            finding.found = format!("tenant {name}'s closed database was dropped already");
            if self.how.dry_run {
                return finding;
            }
            return finding.ended(forget(self.catalogue(), own).await.map(|()| "it is forgotten"));
        }
        finding = finding.hinted("restore it from a backup; or make an empty one: pgfleet tenant mend --make");
        if self.how.dry_run || !self.how.make {
            return finding;
        }
        finding.ended(Box::pin(self.make_again(tenant)).await.map(|()| "it was made again, with its seeds only"))
    }

    /// Makes the databases of a tenant again that are not there.
    async fn make_again(&mut self, tenant: &Tenant) -> Result<(), Error> {
        let name = &tenant.name;
        self.bench.hold(name).await?;
        let made = async {
            let workshop = Workshop::of(self.solution, self.observer).await?;
            let values = self.solution.seed_values(self.catalogue(), name).await?;
            let given = tenant.strings.iter().filter(|string| string.server.is_empty());
            // A closed one is not to be made: nothing leads there any more.
            let mut databases: Vec<OwnDatabase> =
                tenant.databases.iter().filter(|own| own.state == "open").cloned().collect();
            for own in &mut databases {
                let admin = &self.bench.admin(self.solution, &own.server).await?.connection;
                if crate::provision::tenant::Seen::of(admin, &own.database).await?.is_none() {
                    // Known as one that was never made.
                    own.oid = None;
                }
            }
            let half = Half {
                name: name.clone(),
                given: given.map(|string| string.connection.clone()).collect(),
                databases,
                values,
            };
            let to = if tenant.state == TenantState::Disabled { TenantState::Disabled } else { TenantState::Active };
            workshop.finish(&mut self.bench, half, to).await
        };
        let made = made.await;
        self.bench.release(name).await;
        made.map(|_| ())
    }

    /// Finds databases that are marked as a tenant's, and that nobody has.
    pub(super) async fn strange_databases(
        &mut self,
        server: &str,
        look: &Look,
        tenants: &[Tenant],
    ) -> Result<(), Error> {
        let identifier = self.bench.admin(self.solution, server).await?.identifier.clone();
        for present in &look.databases {
            let Some(Mark::Tenant(marked)) = &present.mark else { continue };
            let known =
                tenants.iter().any(|tenant| {
                    let own = tenant.databases.iter().any(|own| {
                        own.server == server && (own.database == present.name || own.oid == Some(present.oid))
                    });
                    // One that is reached by a string is somebody's, whoever made it.
                    own || tenant.strings.iter().any(|string| {
                        string.physical.as_ref().is_some_and(|physical| {
                            physical.system_identifier == identifier && physical.oid == present.oid
                        })
                    })
                });
            if known {
                continue;
            }
            let found = format!("it is marked as tenant {marked}'s, and no tenant has it");
            let finding = Finding::new(Kind::DatabaseWithoutTenant, &present.name, found).at(server).hinted(format!(
                "close it, so that nobody can connect: pgfleet tenant mend --close; drop it: --drop; or give it to a \
                 tenant: pgfleet tenant create {marked} --connection dbname={}",
                present.name
            ));
            let finding = if self.how.dry_run || !(self.how.close && present.open || self.how.drop) {
                finding
            } else {
                let admin = &self.bench.admin(self.solution, server).await?.connection;
                let ended = async {
                    let mark = crate::provision::tenant::tenant_mark(&self.solution.manifest.solution.name, marked);
                    close(admin, &present.name, &mark)
                        .await
                        .map_err(|error| Error::postgres(format!("cannot close database {}", present.name), &error))?;
                    if !self.how.drop {
                        return Ok("it is closed now");
                    }
                    drop_marked(admin, &present.name).await.map(|()| "it is dropped")
                };
                finding.ended(ended.await)
            };
            if let Some(done) = &finding.done {
                let detail = serde_json::json!({ "server": server, "database": present.name, "done": done });
                self.catalogue().audit("tenant mend", marked, &detail, self.solution.options()).await?;
            }
            self.findings.push(finding);
        }
        Ok(())
    }

    /// Finds what is left of templates: halves of an exchange, and those of shapes that are no more.
    pub(super) async fn templates(&mut self, server: &str, look: &Look) -> Result<(), Error> {
        let known: BTreeSet<(String, String)> = templates::read(self.catalogue())
            .await?
            .into_iter()
            .filter(|template| template.server == server)
            .map(|template| (template.shape, template.database))
            .collect();
        let shapes: BTreeSet<String> = Shape::every(&self.solution.manifest).iter().map(Shape::name).collect();
        for present in &look.databases {
            let Some(Mark::Template(shape)) = &present.mark else { continue };
            let in_use = known.contains(&(shape.clone(), present.name.clone()));
            if in_use && shapes.contains(shape) {
                continue;
            }
            let (finding, may) = if in_use {
                let found = format!("no tenant's database is for {} any more", shape.replace('+', ", "));
                let finding = Finding::new(Kind::TemplateWithoutShape, &present.name, found).at(server);
                (finding.hinted("drop it: pgfleet tenant mend --drop; it can be made again"), self.how.drop)
            } else {
                let found = format!("it is left of making the template of {}", shape.replace('+', ", "));
                (Finding::new(Kind::TemplateLeft, &present.name, found).at(server), true)
            };
            let finding = if self.how.dry_run || !may {
                finding
            } else {
                let (catalogue, admin) = self.bench.both(self.solution, server).await?;
                match templates::drop_unused(catalogue, &admin.connection, server, shape, &present.name).await {
                    Ok(true) => finding.ended(Ok("it is dropped")),
                    Ok(false) => finding.hinted("another process makes it just now"),
                    Err(error) => finding.ended(Err::<String, _>(error)),
                }
            };
            self.findings.push(finding);
        }
        Ok(())
    }

    /// Notes how large the tenants' databases are, for placing new ones; where the server does not tell,
    /// what is known stands.
    async fn note_sizes(&mut self, server: &str) -> Result<(), Error> {
        if self.how.dry_run {
            return Ok(());
        }
        let rows = self
            .catalogue()
            .connection()
            .query(
                "SELECT database_oid FROM control.tenant_databases WHERE server = $1 AND state = 'open' \
                 AND database_oid IS NOT NULL",
                &[(&server, Type::TEXT)],
            )
            .await
            .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
        let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
        let admin = &self.bench.admin(self.solution, server).await?.connection;
        let sizes = admin
            .query(
                "SELECT oid, pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE oid = ANY ($1)",
                &[(&oids, Type::OID_ARRAY)],
            )
            .await;
        let Ok(sizes) = sizes else { return Ok(()) };
        let (oids, bytes): (Vec<u32>, Vec<i64>) =
            sizes.iter().map(|row| (row.get::<_, u32>(0), row.get::<_, i64>(1))).unzip();
        crate::tenants::verbs::execute(
            self.catalogue().connection(),
            "UPDATE control.tenant_databases d SET bytes = g.bytes FROM unnest($2::oid[], $3::bigint[]) AS g (oid, bytes) \
             WHERE d.server = $1 AND d.database_oid = g.oid",
            &[(&server, Type::TEXT), (&oids, Type::OID_ARRAY), (&bytes, Type::INT8_ARRAY)],
        )
        .await?;
        Ok(())
    }
}

/// Whether a process died between writing down that a database is closed and closing it.
///
/// One without a date is to come back, and open for that.
fn is_half_closed(own: &OwnDatabase) -> bool {
    matches!(own.state.as_str(), "closed" | "dropping") && own.drop_after.is_some()
}

/// Whether a tenant is served, and no string leads to a database that was made for it; a string that
/// nobody has looked at may.
fn is_unled(tenant: &Tenant, own: &OwnDatabase, tenants: &[Tenant]) -> bool {
    let leads = |physical: &Physical| {
        physical.system_identifier == own.system_identifier
            && (Some(physical.oid) == own.oid || physical.database == own.database)
    };
    matches!(tenant.state, TenantState::Active | TenantState::Disabled)
        && own.state == "open"
        && tenants.iter().flat_map(|tenant| &tenant.strings).all(|string| match &string.physical {
            Some(physical) => !leads(physical),
            None => string.shown.split('?').next().and_then(|shown| shown.split('/').nth(3)) != Some(&own.database),
        })
}
