//! Removing what nobody needs any more: databases and roles of dead processes, and templates out of use.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::comment::{self, TemplateMark};
use super::databases::{Inner, quote, remove_on};
use super::lines::{ALIVE, number};
use super::name;
use super::template::is_true;

/// One process sweeps at a time; the others have nothing to wait for. `pgts` in ASCII.
const SWEEPING: i32 = 0x7067_7473;

/// Removes what is left over, as far as the role may.
pub(super) async fn sweep(inner: &Inner) {
    let Ok(line) = inner.lines.apart().await else { return };
    let locked = line.rows("sweep", &format!("SELECT pg_try_advisory_lock({SWEEPING}, 0)")).await;
    if !locked.is_ok_and(|rows| is_true(rows.first())) {
        return;
    }
    if let Ok(found) = look(&line).await {
        for database in found.databases.iter().filter(|database| found.is_over(database, inner.is_ours)) {
            remove_on(&line, &database.name).await;
        }
        // On a server of somebody else's, tests make no roles through us.
        for role in found.roles.iter().filter(|role| inner.is_ours && found.is_dead(role)) {
            // Fails while something still belongs to the role; then the next sweep tries again.
            let role = quote(role);
            let _ = line.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
        }
    }
    let _ = line.rows("sweep", &format!("SELECT pg_advisory_unlock({SWEEPING}, 0)")).await;
}

struct Found {
    databases: Vec<Database>,
    roles: Vec<String>,
    /// Keys of processes that live.
    alive: Vec<i32>,
    yesterday: String,
    last_week: String,
}

struct Database {
    name: String,
    comment: String,
}

/// Names first, then who lives: a process that makes a database in between is none of the names', and one whose
/// database is among them was alive before.
async fn look(client: &Client) -> Result<Found, tokio_postgres::Error> {
    let prefix = name::PREFIX.replace('_', "\\_");
    let sql = format!(
        "SELECT datname, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database \
         WHERE datname LIKE '{prefix}%'; \
         SELECT rolname FROM pg_roles WHERE rolname LIKE '{prefix}%'; \
         SELECT objid::int8 FROM pg_locks WHERE locktype = 'advisory' AND classid = {ALIVE} AND objsubid = 2; \
         SELECT to_char(day - interval '1 day', 'YYYY-MM-DD'), to_char(day - interval '7 days', 'YYYY-MM-DD') \
         FROM (SELECT now() AT TIME ZONE 'UTC') AS days (day)"
    );
    let mut answers: Vec<Vec<Vec<String>>> = Vec::new();
    for message in client.simple_query(&sql).await? {
        match (message, answers.last_mut()) {
            (SimpleQueryMessage::RowDescription(_), _) => answers.push(Vec::new()),
            (SimpleQueryMessage::Row(row), Some(rows)) => {
                rows.push((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect());
            }
            _ => {}
        }
    }
    let mut answers = answers.into_iter();
    let mut next = || answers.next().into_iter().flatten();
    let database = |row: Vec<String>| {
        let mut row = row.into_iter();
        Database { name: row.next().unwrap_or_default(), comment: row.next().unwrap_or_default() }
    };
    let databases = next().map(database).collect();
    let roles = next().filter_map(|row| row.into_iter().next()).collect();
    // The view has the number unsigned.
    let alive = next().filter_map(|row| Some(row.first()?.parse::<u32>().ok()?.cast_signed())).collect();
    let mut days = next().next().unwrap_or_default().into_iter();
    let (yesterday, last_week) = (days.next().unwrap_or_default(), days.next().unwrap_or_default());
    Ok(Found { databases, roles, alive, yesterday, last_week })
}

impl Found {
    fn is_dead(&self, name: &str) -> bool {
        name::key(name).is_some_and(|key| !self.alive.contains(&number(key)))
    }

    /// Whether a database can go. Days are compared as texts, whose order is that of time.
    fn is_over(&self, database: &Database, is_ours: bool) -> bool {
        let Database { name, comment } = database;
        if name::is_template(name) {
            let unused =
                |mark: TemplateMark| mark.used < *if mark.family.is_some() { &self.yesterday } else { &self.last_week };
            return TemplateMark::read(comment).is_some_and(unused);
        }
        match comment::kept(comment) {
            Some(day) => self.is_dead(name) && day < self.last_week.as_str(),
            None => self.is_dead(name) && (is_ours || comment::is_database(comment)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        Found {
            databases: Vec::new(),
            roles: Vec::new(),
            alive: vec![number(0xffff_fff0)],
            yesterday: "2026-07-01".to_owned(),
            last_week: "2026-06-25".to_owned(),
        }
    }

    fn is_over(name: &str, comment: &str) -> bool {
        found().is_over(&Database { name: name.to_owned(), comment: comment.to_owned() }, false)
    }

    #[test]
    fn only_what_is_marked_and_of_a_dead_process_goes() {
        let dead = name::unique(1);
        let marked = comment::of_database();
        assert!(is_over(&dead, marked));
        assert!(!is_over(&name::unique(0xffff_fff0), marked), "its process lives");
        for other in ["", "somebody's"] {
            assert!(!is_over(&dead, other), "not marked");
        }
        assert!(!is_over("pgt_shirts", marked), "not one of our names");
        let database = Database { name: format!("{dead}_tenant"), comment: String::new() };
        assert!(found().is_over(&database, true), "everything on the server is for tests");
    }

    #[test]
    fn what_is_kept_goes_after_a_week() {
        let dead = name::unique(1);
        assert!(!is_over(&dead, &comment::of_kept("2026-06-25")));
        assert!(is_over(&dead, &comment::of_kept("2026-06-24")));
    }

    #[test]
    fn templates_go_when_they_were_not_used() {
        let name = name::of_template("0123456789abcdef01234567");
        let mark = |used: &str, family: Option<&str>| {
            TemplateMark { used: used.to_owned(), bytes: 1, family: family.map(str::to_owned) }.text()
        };
        assert!(!is_over(&name, &mark("2026-06-25", None)));
        assert!(is_over(&name, &mark("2026-06-24", None)));
        assert!(!is_over(&name, &mark("2026-07-01", Some("f"))));
        assert!(is_over(&name, &mark("2026-06-30", Some("f"))));
        assert!(!is_over(&name, "somebody's"));
    }
}
