//! Databases that others are copied from, made once by whoever needs them first.
//!
//! A template gets its name and is closed in one transaction, when everything in it is done. So there is no half-made
//! one: what a dead process was working on has an ordinary name, and is swept like any other database.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::SimpleQueryRow;
use tokio_postgres::error::SqlState;

use super::comment::TemplateMark;
use super::databases::{Failure, Inner, remove_on};
use super::lines::Line;
use super::{database_error, name};
use crate::error::{Error, Result};

/// First half of the locks under which templates are made: `pgtt` in ASCII. The second is of their hash.
const MAKING: i32 = 0x7067_7474;

/// How long others wait between two looks whether it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// From this size on copying files is cheaper than logging every block, checkpoints included.
const LARGE: u64 = 100 << 20;

/// The server's day.
pub(super) const TODAY: &str = "to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')";

type Making = Pin<Box<dyn Future<Output = std::result::Result<(), String>> + Send>>;

/// How a template is made, and the hash that names it.
#[derive(Clone)]
pub struct Recipe {
    pub(super) hash: String,
    family: Option<String>,
    make: Arc<dyn Fn(String) -> Making + Send + Sync>,
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipe").field("hash", &self.hash).field("family", &self.family).finish_non_exhaustive()
    }
}

impl Recipe {
    /// A recipe of 24 lower-case hex digits, which are others as soon as anything in the template is to be, and of
    /// what fills the empty database whose name it is given. When that is done, nobody may be connected any more.
    pub fn new<F, Fut>(hash: impl Into<String>, make: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), String>> + Send + 'static,
    {
        Self { hash: hash.into(), family: None, make: Arc::new(move |database| Box::pin(make(database))) }
    }

    /// Says that the template takes the place of others with the same word, which are removed when it is made; and
    /// that a day without use is enough to remove it.
    #[must_use]
    pub fn replacing(mut self, family: impl Into<String>) -> Self {
        self.family = Some(family.into());
        self
    }
}

/// A template that is there.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) name: String,
    pub(super) copies_files: bool,
}

/// Finds the template or makes it; while another one makes it, waits.
pub(super) async fn ensure(inner: &Inner, recipe: &Recipe) -> Result<Template> {
    let name = name::of_template(&recipe.hash);
    // Half of the lock's number; two templates with one number only wait for each other.
    let number = u32::from_str_radix(&recipe.hash[..8], 16).unwrap_or_default().cast_signed();
    let action = "look for a template";
    let line = inner.lines.take().await?;
    loop {
        if let Some(found) = look(&line, &name).await? {
            return Ok(found);
        }
        // Polled for: who waits in the server for a lock holds a snapshot, which CREATE INDEX CONCURRENTLY in a
        // migration would wait for.
        let rows = line.rows(action, &format!("SELECT pg_try_advisory_lock({MAKING}, {number})")).await?;
        if is_true(rows.first()) {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let made = match look(&line, &name).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => make(inner, &line, &name, recipe).await,
        Err(error) => Err(error),
    };
    // Lost together with the connection otherwise.
    let _ = line.rows(action, &format!("SELECT pg_advisory_unlock({MAKING}, {number})")).await;
    made
}

/// Looks for the template, and notes that it is used.
async fn look(line: &Line<'_>, name: &str) -> Result<Option<Template>> {
    let sql = format!(
        "SELECT datistemplate AND NOT datallowconn, coalesce(shobj_description(oid, 'pg_database'), ''), {TODAY} \
         FROM pg_database WHERE datname = '{name}'"
    );
    let rows = line.rows("look for a template", &sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let text = |at| row.get(at).unwrap_or_default();
    let Some(mut mark) = TemplateMark::read(text(1)).filter(|_| is_true(Some(row))) else {
        return Err(Error::invalid(format!("database {name} is not a template of pgfleet's tests; drop or rename it")));
    };
    if mark.used != text(2) {
        text(2).clone_into(&mut mark.used);
        // Somebody else may note the same at the same time.
        let _ =
            line.rows("note", &format!("COMMENT ON DATABASE {name} IS '{}'", mark.text().replace('\'', "''"))).await;
    }
    Ok(Some(Template { name: name.to_owned(), copies_files: mark.bytes >= LARGE }))
}

async fn make(inner: &Inner, line: &Line<'_>, name: &str, recipe: &Recipe) -> Result<Template> {
    let draft = inner.create_on(line, None).await.map_err(|failure| match failure {
        Failure::NoTemplate(error) | Failure::Other(error) => error,
    })?;
    // In a task, so that a panic in what fills it is an error like any other.
    let filled = match tokio::spawn((recipe.make)(draft.clone())).await {
        Ok(filled) => filled.map_err(Error::invalid),
        Err(error) => Err(Error::invalid(format!("what fills the template panicked: {error}"))),
    };
    let made = match filled {
        Ok(()) => publish(line, &draft, name, recipe).await,
        Err(error) => Err(error),
    };
    if made.is_err() {
        remove_on(line, &draft).await;
    } else if let Some(family) = &recipe.family {
        replace(line, name, family).await;
    }
    made
}

/// Closes the draft and gives it its name.
async fn publish(line: &Line<'_>, draft: &str, name: &str, recipe: &Recipe) -> Result<Template> {
    let action = "make a template";
    let rows = line.rows(action, &format!("SELECT pg_database_size('{draft}'), {TODAY}")).await?;
    let text = |at: usize| rows.first().and_then(|row| row.get(at)).unwrap_or_default();
    let bytes = text(0).parse().unwrap_or_default();
    let mark = TemplateMark { used: text(1).to_owned(), bytes, family: recipe.family.clone() };
    // One message, so one transaction. Renaming waits until the server has seen the last session go.
    let sql = format!(
        "ALTER DATABASE {draft} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false; \
         COMMENT ON DATABASE {draft} IS '{}'; ALTER DATABASE {draft} RENAME TO {name}",
        mark.text().replace('\'', "''")
    );
    let exists = |error: &tokio_postgres::Error| {
        matches!(error.code(), Some(&(SqlState::DUPLICATE_DATABASE | SqlState::UNIQUE_VIOLATION)))
    };
    match line.batch_execute(&sql).await {
        Ok(()) => Ok(Template { name: name.to_owned(), copies_files: bytes >= LARGE }),
        // The lock is of one database; whoever begins in another one does not see it.
        Err(error) if exists(&error) => {
            let found = look(line, name).await?.ok_or_else(|| database_error(action, error))?;
            remove_on(line, draft).await;
            Ok(found)
        }
        Err(error) => Err(database_error(action, error)),
    }
}

/// Removes the templates that this one takes the place of.
async fn replace(line: &Line<'_>, name: &str, family: &str) {
    let sql = format!(
        "SELECT datname, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database \
         WHERE datname LIKE 'pgt\\_%' AND datname <> '{name}' AND datistemplate"
    );
    for row in line.rows("look for templates", &sql).await.unwrap_or_default() {
        let (Some(other), Some(text)) = (row.get(0), row.get(1)) else { continue };
        let is_older = TemplateMark::read(text).is_some_and(|mark| mark.family.as_deref() == Some(family));
        if name::is_template(other) && is_older {
            remove_on(line, other).await;
        }
    }
}

/// Whether a row begins with true.
pub(super) fn is_true(row: Option<&SimpleQueryRow>) -> bool {
    row.is_some_and(|row| row.get(0) == Some("t"))
}
