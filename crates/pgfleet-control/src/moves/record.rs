//! The rows of `control.moves`.

use pgfleet_postgres::Type;
use serde::{Deserialize, Serialize};

use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};

/// How far a move is, a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveState {
    /// Nobody may write to the old database any more.
    Fencing,
    /// The data is being copied.
    Copying,
    /// Both databases are being read.
    Comparing,
    /// The strings lead to the new database; the old one is not closed yet.
    Switched,
    /// Done.
    Done,
    /// Taken back before the switch.
    Cancelled,
    /// It failed; the tenant is where it was, and is served there.
    Failed,
}

impl MoveState {
    const ALL: [Self; 7] =
        [Self::Fencing, Self::Copying, Self::Comparing, Self::Switched, Self::Done, Self::Cancelled, Self::Failed];

    /// Returns the word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fencing => "fencing",
            Self::Copying => "copying",
            Self::Comparing => "comparing",
            Self::Switched => "switched",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    fn of_word(word: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|state| state.word() == word).ok_or_else(|| {
            Error::new(ErrorKind::Failed, format!("a move is in state `{word}`, which this version does not know"))
        })
    }

    /// Returns whether nothing is left to do.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// One move of a tenant's database.
#[derive(Debug, Clone, Serialize)]
pub struct Move {
    /// Its number.
    pub id: i64,
    /// The tenant.
    pub tenant: String,
    /// The strings that lead to the database: empty for the default.
    pub connections: Vec<String>,
    /// The services whose data is in it.
    pub services: Vec<String>,
    /// The old server.
    pub from_server: String,
    /// The old database.
    pub from_database: String,
    /// The old cluster.
    #[serde(skip)]
    pub(crate) from_identifier: String,
    /// The old database's oid.
    #[serde(skip)]
    pub(crate) from_oid: u32,
    /// Whether pgfleet made the old database, and drops it in the end.
    pub from_own: bool,
    /// The new server.
    pub to_server: String,
    /// The new database.
    pub to_database: String,
    /// The new database's oid, once it is made.
    #[serde(skip)]
    pub(crate) to_oid: Option<u32>,
    /// The move that it takes back without copying.
    #[serde(skip)]
    pub(crate) kept: Option<i64>,
    /// How far it is.
    pub state: MoveState,
    /// Who took it up last.
    #[serde(skip)]
    pub(crate) attempt: i32,
    /// Who could connect to the old database.
    #[serde(skip)]
    pub(crate) fenced: Option<serde_json::Value>,
    /// What is in both.
    pub contents: Option<serde_json::Value>,
    /// How long the old database is kept, in seconds.
    pub keep_seconds: i64,
    /// Until when the old database is kept, in UTC; none when pgfleet does not drop it, or dropped it.
    pub keep_until: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it began, in UTC.
    pub started_at: String,
    /// When it ended, in UTC.
    pub ended_at: Option<String>,
}

impl Move {
    /// Returns `server/database` of where the data was.
    pub fn from(&self) -> String {
        format!("{}/{}", self.from_server, self.from_database)
    }

    /// Returns how many tables were compared, and how many rows; none before that.
    pub fn rows(&self) -> Option<(usize, usize)> {
        let tables = self.contents.as_ref()?.get("tables")?.as_object()?;
        let rows = tables.values().filter_map(|table| table.get(0)?.as_u64()).sum::<u64>();
        Some((tables.len(), usize::try_from(rows).unwrap_or(usize::MAX)))
    }

    /// Returns `server/database` of where the data goes.
    pub fn to(&self) -> String {
        format!("{}/{}", self.to_server, self.to_database)
    }
}

/// Reads moves; `condition` is SQL over the table.
async fn read(catalogue: &Catalogue, condition: &str, tenant: Option<&str>, id: i64) -> Result<Vec<Move>, Error> {
    let utc = "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'";
    let rows = catalogue
        .connection()
        .query(
            &format!(
                "SELECT id, tenant, connections, services, from_server, from_database, from_identifier, from_oid, \
                 from_own, to_server, to_database, to_oid, kept, state, attempt, fenced::text, contents::text, \
                 keep_seconds, error, to_char(started_at AT TIME ZONE 'UTC', {utc}), \
                 to_char(ended_at AT TIME ZONE 'UTC', {utc}), \
                 (SELECT to_char(d.drop_after AT TIME ZONE 'UTC', {utc}) FROM control.tenant_databases d \
                  WHERE d.server = from_server AND d.database = from_database AND d.tenant = moves.tenant \
                    AND d.state = 'closed') FROM control.moves \
                 WHERE ($1::text IS NULL OR moves.tenant = $1) AND ($2 = 0 OR id = $2) AND {condition} ORDER BY id"
            ),
            &[(&tenant, Type::TEXT), (&id, Type::INT8)],
        )
        .await
        .map_err(|error| failed(&error))?;
    let json = |text: Option<&str>| text.and_then(|text| serde_json::from_str(text).ok());
    let mut moves = Vec::with_capacity(rows.len());
    for row in rows {
        moves.push(Move {
            id: row.get(0),
            tenant: row.get(1),
            connections: row.get(2),
            services: row.get(3),
            from_server: row.get(4),
            from_database: row.get(5),
            from_identifier: row.get(6),
            from_oid: row.get(7),
            from_own: row.get(8),
            to_server: row.get(9),
            to_database: row.get(10),
            to_oid: row.get(11),
            kept: row.get(12),
            state: MoveState::of_word(row.get(13))?,
            attempt: row.get(14),
            fenced: json(row.get(15)),
            contents: json(row.get(16)),
            keep_seconds: row.get(17),
            error: row.get(18),
            started_at: row.get(19),
            ended_at: row.get(20),
            keep_until: row.get(21),
        });
    }
    Ok(moves)
}

impl Catalogue {
    /// Reads a tenant's moves, the oldest first.
    ///
    /// # Errors
    ///
    /// The control database cannot be read.
    pub async fn moves(&self, tenant: Option<&str>) -> Result<Vec<Move>, Error> {
        read(self, "true", tenant, 0).await
    }

    /// Reads the move of a tenant that is not over.
    pub(super) async fn unfinished_move(&self, tenant: &str) -> Result<Option<Move>, Error> {
        Ok(read(self, "state NOT IN ('done', 'cancelled')", Some(tenant), 0).await?.pop())
    }

    /// Reads one move.
    pub(super) async fn one_move(&self, id: i64) -> Result<Move, Error> {
        read(self, "true", None, id)
            .await?
            .pop()
            .ok_or_else(|| Error::new(ErrorKind::Failed, format!("move {id} is gone from the control database")))
    }

    /// Reads and locks a move that the caller took up; a transaction is open.
    ///
    /// # Errors
    ///
    /// Somebody else took it up since, or ended it.
    pub(super) async fn lock_move(&self, held: &Move) -> Result<Move, Error> {
        self.connection()
            .query("SELECT 1 FROM control.moves WHERE id = $1 FOR UPDATE", &[(&held.id, Type::INT8)])
            .await
            .map_err(|error| failed(&error))?;
        let now = self.one_move(held.id).await?;
        if now.attempt == held.attempt {
            return Ok(now);
        }
        let message = format!("another process went on with the move of tenant {}", held.tenant);
        Err(Error::new(ErrorKind::Failed, message)
            .hinted(format!("look: pgfleet tenant move {} --status", held.tenant)))
    }

    /// Changes a move that the caller took up, and the caller's copy of it.
    ///
    /// # Errors
    ///
    /// Somebody else took it up since.
    pub(super) async fn advance_move(&self, held: &mut Move) -> Result<(), Error> {
        let (fenced, contents) = (text(held.fenced.as_ref()), text(held.contents.as_ref()));
        let changed = self
            .connection()
            .execute(
                "UPDATE control.moves SET state = $3, to_database = $4, to_oid = $5, kept = $6, \
                   fenced = $7::text::jsonb, contents = $8::text::jsonb, error = $9, \
                   ended_at = CASE WHEN $3 IN ('done', 'cancelled', 'failed') THEN now() END \
                 WHERE id = $1 AND attempt = $2",
                &[
                    (&held.id, Type::INT8),
                    (&held.attempt, Type::INT4),
                    (&held.state.word(), Type::TEXT),
                    (&held.to_database, Type::TEXT),
                    (&held.to_oid, Type::OID),
                    (&held.kept, Type::INT8),
                    (&fenced, Type::TEXT),
                    (&contents, Type::TEXT),
                    (&held.error, Type::TEXT),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        if changed == 0 {
            self.lock_move(held).await?;
        }
        Ok(())
    }
}

fn text(value: Option<&serde_json::Value>) -> Option<String> {
    value.map(ToString::to_string)
}

pub(super) fn failed(error: &pgfleet_postgres::Error) -> Error {
    Error::postgres("cannot read or write the moves in the control database", error)
}
