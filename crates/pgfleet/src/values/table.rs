//! The statements that every table with the standard columns needs.

use pgfleet_postgres::quote_ident;

use super::conflict::{Conflict, UpdateRow};
use super::sql::Sql;

/// The names of the standard columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// The primary key.
    pub id: &'static str,
    /// When the row was changed last.
    pub updated_at: &'static str,
    /// Whether it is deleted.
    pub is_deleted: &'static str,
    /// When it was deleted.
    pub deleted_at: &'static str,
    /// How often it was changed; needed for [`Table::update`] only.
    pub version: &'static str,
}

impl Columns {
    /// `id`, `updated_at`, `is_deleted`, `deleted_at`, `version`: those of [`Schema::standard_table`](crate::Schema::standard_table).
    pub const STANDARD: Self = Self {
        id: "id",
        updated_at: "updated_at",
        is_deleted: "is_deleted",
        deleted_at: "deleted_at",
        version: "version",
    };

    /// `Id`, `UpdatedAt`, `IsDeleted`, `DeletedAt`, `Version`, for tables whose names are quoted.
    pub const PASCAL_CASE: Self = Self {
        id: "Id",
        updated_at: "UpdatedAt",
        is_deleted: "IsDeleted",
        deleted_at: "DeletedAt",
        version: "Version",
    };

    fn quoted(&self) -> [String; 5] {
        [self.id, self.updated_at, self.is_deleted, self.deleted_at, self.version].map(quote_ident)
    }
}

/// A table with the standard columns, whose deleted rows stay in it and are not seen.
///
/// It writes statements and runs none: they go to whichever client the service has. The id is always `$1`. Names are
/// folded to lower case, as the server folds those without quotes; see [`columns`](Self::columns) for others.
///
/// ```no_run
/// use pgfleet::values::{Entity, Id, Money, Table};
///
/// const TRIPS: Table = Table::new("trips");
///
/// struct Trip;
/// impl Entity for Trip {
///     const PREFIX: &'static str = "t_";
/// }
///
/// # async fn with_tokio_postgres(db: &tokio_postgres::Client, id: Id<Trip>) -> Result<(), tokio_postgres::Error> {
/// let fares = db.query(&*TRIPS.select("fare").and("seats > $1"), &[&0]).await?;
/// if db.execute(&*TRIPS.soft_delete(), &[&id]).await? == 0 {
///     // There is no such trip, or it is deleted already.
/// }
/// let with_deleted = db.query(&*TRIPS.with_deleted().select("id"), &[]).await?;
/// # Ok(())
/// # }
/// # #[cfg(feature = "sqlx")]
/// # async fn with_sqlx(pool: &sqlx::PgPool, id: Id<Trip>) -> Result<(), sqlx::Error> {
/// let fares: Vec<(Money,)> = sqlx::query_as(TRIPS.select("fare").and("seats > $1")).bind(0).fetch_all(pool).await?;
/// sqlx::query(TRIPS.soft_delete()).bind(id).execute(pool).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    name: &'static str,
    columns: Columns,
    as_written: bool,
    with_deleted: bool,
    versioned: bool,
    keeps_deleted: bool,
}

impl Table {
    /// A table by its name, or `schema.table`.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            columns: Columns::STANDARD,
            as_written: false,
            with_deleted: false,
            versioned: false,
            keeps_deleted: true,
        }
    }

    /// The same table with other names of the columns; these and the table's are kept as they are written.
    ///
    /// ```
    /// use pgfleet::values::{Columns, Table};
    ///
    /// let drivers = Table::new("Drivers").columns(Columns::PASCAL_CASE);
    /// assert_eq!(&*drivers.select("*"), r#"SELECT * FROM "Drivers" WHERE NOT "IsDeleted""#);
    /// ```
    #[must_use]
    pub const fn columns(self, columns: Columns) -> Self {
        Self { columns, as_written: true, ..self }
    }

    /// The same table with a version column, which deleting and restoring count up, too.
    #[must_use]
    pub const fn versioned(self) -> Self {
        Self { versioned: true, ..self }
    }

    /// The same table with its deleted rows: they are selected, updated, deleted and restored like all others.
    #[must_use]
    pub const fn with_deleted(self) -> Self {
        Self { with_deleted: true, ..self }
    }

    /// The same table without the two columns that say what is deleted: what is deleted there is gone, with a `DELETE`
    /// of one's own.
    ///
    /// ```
    /// use pgfleet::values::{Columns, Table};
    ///
    /// const TRIPS: Table = Table::new("trips")
    ///     .columns(Columns { updated_at: "updated_at_utc", ..Columns::STANDARD })
    ///     .versioned()
    ///     .without_deleted();
    /// assert_eq!(&*TRIPS.select("id").and("seats > $1"), r#"SELECT id FROM "trips" WHERE true AND (seats > $1)"#);
    /// ```
    #[must_use]
    pub const fn without_deleted(self) -> Self {
        Self { keeps_deleted: false, with_deleted: true, ..self }
    }

    /// Selects columns of the rows that are not deleted. It ends in a condition, so that [`Sql::and`] can follow.
    pub fn select(&self, columns: &'static str) -> Sql {
        let condition = if self.with_deleted { "true".to_owned() } else { self.live() };
        Sql::made(format!("SELECT {columns} FROM {} WHERE {condition}", self.quoted()))
    }

    /// The condition that a row is not deleted, for a statement of one's own with the table under another name: in
    /// `FROM trips t`, the alias is `t`.
    pub fn live_as(&self, alias: &'static str) -> String {
        if self.with_deleted {
            "true".to_owned()
        } else {
            format!("NOT {alias}.{}", quote_ident(self.columns.is_deleted))
        }
    }

    /// Marks the row with id `$1` as deleted. It changes one row, or none if there is none or it is deleted already.
    ///
    /// # Panics
    ///
    /// For a table [without](Self::without_deleted) the columns of it.
    pub fn soft_delete(&self) -> Sql {
        self.mark("true", "CURRENT_TIMESTAMP", &format!("NOT {}", quote_ident(self.columns.is_deleted)))
    }

    /// Takes back that the row with id `$1` was deleted. It changes one row, or none if there is none or it is not deleted.
    ///
    /// # Panics
    ///
    /// As [`soft_delete`](Self::soft_delete).
    pub fn restore(&self) -> Sql {
        self.mark("false", "NULL", &quote_ident(self.columns.is_deleted))
    }

    fn mark(&self, is_deleted: &str, deleted_at: &str, condition: &str) -> Sql {
        assert!(self.keeps_deleted, "{} has no column that says what is deleted", self.name);
        let [id, updated_at, deleted, at, version] = self.columns.quoted();
        let condition = if self.with_deleted { "true" } else { condition };
        let counts = if self.versioned { format!(", {version} = {version} + 1") } else { String::new() };
        Sql::made(format!(
            "UPDATE {} SET {deleted} = {is_deleted}, {at} = {deleted_at}, {updated_at} = CURRENT_TIMESTAMP{counts} \
             WHERE {id} = $1 AND {condition}",
            self.quoted()
        ))
    }

    /// Changes the row with id `$1` if it still has version `$2`, a `bigint` to bind; values of one's own begin with `$3`.
    ///
    /// `set` stands behind `SET`. The version is counted up and `updated_at` set. The statement returns a row if there
    /// is one with that id, changed or not: [`updated`](Self::updated) says which. The row is locked until the
    /// transaction's end.
    ///
    /// ```no_run
    /// # use pgfleet::values::{Conflict, Entity, Id, Table};
    /// # #[derive(Debug)] enum Error { Conflict(Conflict), Postgres(tokio_postgres::Error) }
    /// # impl From<Conflict> for Error { fn from(e: Conflict) -> Self { Self::Conflict(e) } }
    /// # impl From<tokio_postgres::Error> for Error { fn from(e: tokio_postgres::Error) -> Self { Self::Postgres(e) } }
    /// # struct Trip;
    /// # impl Entity for Trip { const PREFIX: &'static str = "t_"; }
    /// const TRIPS: Table = Table::new("trips").versioned();
    ///
    /// # async fn with_tokio_postgres(db: &tokio_postgres::Client, id: Id<Trip>) -> Result<i64, Error> {
    /// # let version = 1_i64;
    /// let row = db.query_opt(&*TRIPS.update("seats = $3"), &[&id, &version, &4]).await?;
    /// let version: i64 = TRIPS.updated(row.as_ref(), version)?;
    /// # Ok(version)
    /// # }
    /// ```
    pub fn update(&self, set: &'static str) -> Sql {
        let [id, updated_at, _, _, version] = self.columns.quoted();
        let (table, last) = (self.quoted(), quote_ident(self.parts().next_back().unwrap_or_default().as_str()));
        let condition = if self.with_deleted { "" } else { " AND NOT had_deleted" };
        Sql::made(format!(
            "WITH had AS ({}), changed AS (UPDATE {table} SET {set}, {version} = {last}.{version} + 1, \
             {updated_at} = CURRENT_TIMESTAMP FROM had WHERE {last}.{id} = $1 AND had_version = $2{condition} \
             RETURNING {last}.{version}::bigint AS new_version) \
             SELECT (SELECT new_version FROM changed), had_version, had_deleted FROM had",
            self.had(" FOR UPDATE")
        ))
    }

    /// Looks why an update of one's own has changed no row: the row with id `$1`, for [`updated`](Self::updated).
    pub fn look(&self) -> Sql {
        Sql::made(format!(
            "SELECT NULL::bigint AS new_version, had_version, had_deleted FROM ({}) AS had",
            self.had("")
        ))
    }

    fn had(&self, locks: &str) -> String {
        let [id, _, is_deleted, _, version] = self.columns.quoted();
        let is_deleted = if self.keeps_deleted { is_deleted } else { "false".to_owned() };
        format!(
            "SELECT {version}::bigint AS had_version, {is_deleted} AS had_deleted FROM {} WHERE {id} = $1{locks}",
            self.quoted()
        )
    }

    /// Says what [`update`](Self::update) or [`look`](Self::look) returned: the new version, or why nothing was changed.
    ///
    /// # Errors
    ///
    /// [`Conflict`]: the row is gone, is deleted, or has another version than the expected one.
    ///
    /// # Panics
    ///
    /// When the row is of another statement.
    pub fn updated<R: UpdateRow>(&self, row: Option<&R>, expected: i64) -> Result<i64, Conflict> {
        Conflict::unless_updated(self.name, row, expected, self.with_deleted)
    }

    fn live(&self) -> String {
        format!("NOT {}", quote_ident(self.columns.is_deleted))
    }

    fn parts(&self) -> impl DoubleEndedIterator<Item = String> {
        self.name.split('.').map(|part| if self.as_written { part.to_owned() } else { part.to_lowercase() })
    }

    fn quoted(&self) -> String {
        self.parts().map(|part| quote_ident(&part)).collect::<Vec<_>>().join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_or_kept() {
        let table = Table::new("Shop.Trips");
        assert_eq!(&*table.select("id"), "SELECT id FROM \"shop\".\"trips\" WHERE NOT \"is_deleted\"");
        assert_eq!(table.live_as("t"), "NOT t.\"is_deleted\"");
        assert_eq!(table.with_deleted().live_as("t"), "true");
        let table = table.columns(Columns::PASCAL_CASE);
        assert_eq!(&*table.with_deleted().select("*"), "SELECT * FROM \"Shop\".\"Trips\" WHERE true");
        assert_eq!(
            &*table.versioned().restore(),
            "UPDATE \"Shop\".\"Trips\" SET \"IsDeleted\" = false, \"DeletedAt\" = NULL, \"UpdatedAt\" = CURRENT_TIMESTAMP, \
             \"Version\" = \"Version\" + 1 WHERE \"Id\" = $1 AND \"IsDeleted\""
        );
    }
}
