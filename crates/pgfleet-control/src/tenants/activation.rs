//! Making a tenant active, when its databases are as they should be.

use std::collections::HashMap;

use pgfleet_postgres::{Connection, Type};
use secrecy::SecretString;

use super::bench::Bench;
use super::check::Tried;
use super::life::Half;
use super::verbs::{execute, store};
use super::workshop::{Made, Workshop};
use super::{Choices, NewString, OwnDatabase, TenantState};
use crate::error::{Error, ErrorKind};
use crate::physical::Physical;
use crate::roles::Login;
use crate::standing::Standing;
use crate::templates::Shape;

impl Workshop<'_> {
    /// Makes a tenant active, in one transaction, when its databases are at the head of this moment;
    /// says whether they are. `to` may be that it is disabled, as it was before it was deleted.
    pub(super) async fn activate(
        &self,
        bench: &Bench,
        half: &Half,
        made: &[Made],
        to: TenantState,
    ) -> Result<bool, Error> {
        let catalogue = &bench.catalogue;
        let connection = catalogue.connection();
        let work = async {
            let sharing = self.solution.sharing()?;
            let ((), is_head, (), known, missing) = tokio::try_join!(
                catalogue.begin(),
                self.is_head(connection, half, made),
                self.open_all(connection, half, made),
                set_state(connection, &half.name, to),
                sharing.missing(connection, &half.name),
            )?;
            if !is_head {
                return Ok(false);
            }
            if known == 0 {
                let message = format!("tenant {} is being moved, or is gone", half.name);
                return Err(Error::new(ErrorKind::Failed, message)
                    .hinted(format!("look: pgfleet tenant move {} --status", half.name)));
            }
            let shared = sharing.sealed(self.solution, &missing)?;
            let standings: Vec<Standing> = made.iter().flat_map(|made| made.standings.clone()).collect();
            let names: Vec<&str> = half.databases.iter().map(|own| own.database.as_str()).collect();
            let detail = serde_json::json!({ "databases": names });
            let action = format!("tenant {}", to.word());
            // After a statement that failed the commit is none, and the error of that statement says so.
            tokio::try_join!(
                shared.store(connection),
                catalogue.record_standings(&standings),
                catalogue.audit(&action, &half.name, &detail, self.solution.options()),
                catalogue.commit(false),
            )?;
            Ok(true)
        };
        match Box::pin(work).await {
            Ok(true) => Ok(true),
            // Nothing of it stays.
            Ok(false) => catalogue.roll_back().await.map(|()| false),
            Err(error) => catalogue.end(Err(error)).await,
        }
    }

    /// Compares the databases with the templates as they are now.
    ///
    /// Whoever rolls files out brings the templates to them first, and looks for tenants last: rows that
    /// are locked here until the tenant is active let it see the tenant, or us the new template.
    async fn is_head(&self, connection: &Connection, half: &Half, made: &[Made]) -> Result<bool, Error> {
        let servers: Vec<&str> = half.databases.iter().map(|own| own.server.as_str()).collect();
        let shapes: Vec<String> =
            half.databases.iter().map(|own| Shape::of(&self.solution.manifest, &own.services).name()).collect();
        let rows = connection
            .query(
                "SELECT t.server, t.shape, t.plan FROM control.templates t \
                 WHERE (t.server, t.shape) IN (SELECT * FROM unnest($1::text[], $2::text[])) FOR SHARE",
                &[(&servers, Type::TEXT_ARRAY), (&shapes, Type::TEXT_ARRAY)],
            )
            .await
            .map_err(|error| Error::postgres("cannot read the templates in the control database", &error))?;
        let plans: HashMap<(&str, &str), &str> =
            rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
        let at_head = |at: usize| plans.get(&(servers[at], shapes[at].as_str())) == Some(&made[at].print.as_str());
        Ok((0..made.len()).all(at_head))
    }

    /// Stores the strings that lead to a tenant's databases, and that those are open.
    async fn open_all(&self, connection: &Connection, half: &Half, made: &[Made]) -> Result<(), Error> {
        let keys = self.solution.keys()?;
        let each = half.databases.iter().zip(made).map(|(own, made)| {
            let given = half.given.contains(&own.connection);
            let string = if given { None } else { Some(self.string_to(&half.name, own, &made.physical)?) };
            Ok::<_, Error>((own, made, string))
        });
        let all = each.collect::<Result<Vec<_>, Error>>()?;
        let stores = all.iter().map(|(own, made, string)| {
            let keys = &keys;
            let stored = async move {
                let Some((string, tried)) = string else { return Ok(()) };
                store(connection, keys, &half.name, string, tried, Choices::default(), &own.server).await
            };
            futures_util::future::try_join(stored, set_open(connection, own, made))
        });
        futures_util::future::try_join_all(stores).await?;
        Ok(())
    }

    /// Makes the string that leads to a tenant's own database.
    fn string_to(&self, tenant: &str, own: &OwnDatabase, physical: &Physical) -> Result<(NewString, Tried), Error> {
        let text = SecretString::from(format!("dbname='{}'", own.database.replace('\\', "\\\\").replace('\'', "\\'")));
        let service = own.services.first().ok_or_else(|| {
            Error::new(ErrorKind::Failed, format!("database {} of tenant {tenant} is for no service", own.database))
        })?;
        let service = crate::jobs::find_service(&self.solution.manifest, service)?;
        let address = self.solution.text_address(service, &own.server, &text, tenant, Login::App)?;
        let shown = super::check::shown(&address, &text);
        let tried = Tried { shown, physical: Some(physical.clone()), notes: Vec::new() };
        Ok((NewString { connection: own.connection.clone(), text }, tried))
    }
}

/// Brings a tenant that is not being moved into a state; says how many there are.
async fn set_state(connection: &Connection, tenant: &str, to: TenantState) -> Result<u64, Error> {
    execute(
        connection,
        "UPDATE control.tenants SET state = $2, error = NULL, updated_at = now() WHERE name = $1 AND NOT moving",
        &[(&tenant, Type::TEXT), (&to.word(), Type::TEXT)],
    )
    .await
}

/// Notes that a database is open, and which one it is.
async fn set_open(connection: &Connection, own: &OwnDatabase, made: &Made) -> Result<u64, Error> {
    execute(
        connection,
        "UPDATE control.tenant_databases SET state = 'open', system_identifier = $3, database_oid = $4, \
           bytes = $5, closed_at = NULL, drop_after = NULL WHERE server = $1 AND database = $2",
        &[
            (&own.server, Type::TEXT),
            (&own.database, Type::TEXT),
            (&made.physical.system_identifier, Type::TEXT),
            (&made.physical.oid, Type::OID),
            (&made.bytes, Type::INT8),
        ],
    )
    .await
}
