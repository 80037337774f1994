//! Copies of templates, and who makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pgfleet_local::testing::{Databases, Recipe, TestServer};
use tokio_postgres::Client;

use crate::shared::connect;

/// A recipe that nobody else has, and how often it was followed.
struct Kitchen {
    server: TestServer,
    hash: String,
    made: Arc<AtomicU32>,
}

impl Kitchen {
    async fn new() -> Self {
        let hash = format!("{:08x}{:016x}", rand::random::<u32>(), rand::random::<u64>());
        Self { server: TestServer::shared().await, hash, made: Arc::default() }
    }

    /// Fills the template with a table, by that statement.
    fn recipe(&self, sql: &'static str) -> Recipe {
        let (server, made) = (self.server.clone(), self.made.clone());
        Recipe::new(&self.hash, move |database| {
            let url = server.superuser_url(&database);
            made.fetch_add(1, Ordering::SeqCst);
            async move {
                let client = connect(&url).await;
                client.batch_execute(sql).await.map_err(|error| error.to_string())
            }
        })
    }

    /// As another process has it.
    fn others(&self) -> Databases {
        let url = self.server.superuser_url("postgres");
        Databases::on(move || {
            let url = url.clone();
            async move { Ok(connect(&url).await) }
        })
    }

    fn template(&self) -> String {
        format!("pgt_{}", self.hash)
    }

    fn made(&self) -> u32 {
        self.made.load(Ordering::SeqCst)
    }

    async fn admin(&self) -> Client {
        connect(&self.server.superuser_url("postgres")).await
    }

    async fn rows(&self, database: &str) -> i64 {
        let client = connect(&self.server.superuser_url(database)).await;
        client.query_one("SELECT count(*) FROM dish", &[]).await.unwrap().get(0)
    }

    /// Copies, looks and removes.
    async fn serve(&self, databases: &Databases, recipe: Recipe) {
        let name = databases.copy(recipe).await.unwrap();
        assert_eq!(self.rows(&name).await, 1);
        databases.remove(&name).await;
        let left = self.admin().await.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name]).await;
        assert!(left.unwrap().is_none());
    }

    async fn clean_up(self) {
        self.server.databases().remove(&self.template()).await;
    }
}

const DISH: &str = "CREATE TABLE dish AS SELECT 1 AS id";

#[tokio::test]
async fn a_template_is_made_once_for_all() {
    let kitchen = Kitchen::new().await;
    let (ours, others) = (kitchen.server.databases(), kitchen.others());
    let serve = |databases| kitchen.serve(databases, kitchen.recipe(DISH));
    tokio::join!(serve(ours), serve(&others), serve(ours), serve(&others));
    assert_eq!(kitchen.made(), 1);
    let url = kitchen.server.superuser_url(&kitchen.template());
    let refused = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
    assert!(refused.is_err(), "nobody gets into the template");
    kitchen.clean_up().await;
}

#[tokio::test]
async fn a_template_that_went_away_is_made_again() {
    let kitchen = Kitchen::new().await;
    let ours = kitchen.server.databases();
    kitchen.serve(ours, kitchen.recipe(DISH)).await;
    kitchen.others().remove(&kitchen.template()).await;
    kitchen.serve(ours, kitchen.recipe(DISH)).await;
    assert_eq!(kitchen.made(), 2);
    kitchen.clean_up().await;
}

#[tokio::test]
async fn a_template_that_cannot_be_made_is_not_tried_again_by_the_process_and_leaves_nothing() {
    let kitchen = Kitchen::new().await;
    let databases = kitchen.others();
    let first = databases.copy(kitchen.recipe("CREATE TABLE dish (")).await.unwrap_err().to_string();
    assert!(first.contains("db error") || first.contains("syntax error"), "{first}");
    let second = databases.copy(kitchen.recipe(DISH)).await.unwrap_err().to_string();
    assert_eq!((first, kitchen.made()), (second, 1));
    kitchen.serve(kitchen.server.databases(), kitchen.recipe(DISH)).await;
    kitchen.clean_up().await;
}

#[tokio::test]
async fn a_panic_in_a_recipe_is_an_error() {
    let kitchen = Kitchen::new().await;
    let recipe = Recipe::new(&kitchen.hash, |database| async move { panic!("no fire under {database}") });
    let error = kitchen.others().copy(recipe).await.unwrap_err().to_string();
    assert!(error.contains("panicked") && error.contains("no fire under pgt_"), "{error}");
}

#[tokio::test]
async fn a_template_takes_the_place_of_the_older_one_of_its_family() {
    let (older, newer) = (Kitchen::new().await, Kitchen::new().await);
    let family = format!("o'{}", &older.hash[..8]);
    let databases = older.server.databases();
    older.serve(databases, older.recipe(DISH).replacing(&family)).await;
    newer.serve(databases, newer.recipe(DISH).replacing(&family)).await;
    let sql = "SELECT datname::text FROM pg_database WHERE datname IN ($1, $2)";
    let there = older.admin().await.query(sql, &[&older.template(), &newer.template()]).await.unwrap();
    assert_eq!(there.iter().map(|row| row.get(0)).collect::<Vec<String>>(), [newer.template()]);
    newer.clean_up().await;
}

#[tokio::test]
async fn the_use_of_a_large_template_is_noted_and_its_size_stays() {
    let kitchen = Kitchen::new().await;
    kitchen.serve(kitchen.server.databases(), kitchen.recipe(DISH)).await;
    // Long ago enough to be noted, and not so long that somebody sweeps it.
    let yesterday = "SELECT to_char(now() AT TIME ZONE 'UTC' - interval '1 day', 'YYYY-MM-DD')";
    let yesterday: String = kitchen.admin().await.query_one(yesterday, &[]).await.unwrap().get(0);
    let comment = format!("pgfleet test template; used {yesterday}; bytes 1000000000");
    let sql = format!("COMMENT ON DATABASE {} IS '{comment}'", kitchen.template());
    kitchen.admin().await.batch_execute(&sql).await.unwrap();
    kitchen.serve(&kitchen.others(), kitchen.recipe(DISH)).await;
    let noted = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1";
    let noted: String = kitchen.admin().await.query_one(noted, &[&kitchen.template()]).await.unwrap().get(0);
    assert!(noted.ends_with("bytes 1000000000") && !noted.contains(&yesterday), "{noted}");
    assert_eq!(kitchen.made(), 1);
    kitchen.clean_up().await;
}

/// Whether somebody holds the lock that says that the process in that name lives.
async fn is_alive(admin: &Client, name: &str) -> bool {
    let key = u32::from_str_radix(name.split('_').nth(2).unwrap(), 16).unwrap();
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1885828208 AND objid = $1";
    admin.query_one(sql, &[&key]).await.unwrap().get::<_, i64>(0) > 0
}

/// Makes a database of a process that is gone, which the server calls invalid: so it is while it is dropped, and when
/// that was interrupted.
async fn half_dropped(admin: &Client) -> String {
    let name = format!("pgt_1_{:08x}_0_{:04x}", rand::random::<u32>(), rand::random::<u16>());
    admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
    let marks = format!(
        "COMMENT ON DATABASE {name} IS 'pgfleet test database'; \
         UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'"
    );
    admin.batch_execute(&marks).await.unwrap();
    name
}

async fn is_there(admin: &Client, name: &str) -> bool {
    let sql = "SELECT FROM pg_database WHERE datname = $1";
    admin.query_opt(sql, &[&name]).await.unwrap().is_some()
}

#[tokio::test]
async fn removing_what_another_one_is_removing_does_not_cost_the_process_its_lock() {
    let kitchen = Kitchen::new().await;
    let (admin, others) = (kitchen.admin().await, kitchen.others());
    let ours = others.empty().await.unwrap();
    let half = half_dropped(&admin).await;
    others.remove(&half).await;
    assert!(!is_there(&admin, &half).await);
    assert!(is_alive(&admin, &ours).await && is_there(&admin, &ours).await);
    others.remove(&ours).await;
}

#[tokio::test]
async fn a_sweep_beside_others_that_drop_what_it_sweeps_leaves_what_is_alive() {
    let kitchen = Kitchen::new().await;
    let admin = kitchen.admin().await;
    let mut left = Vec::new();
    for _ in 0..3 {
        left.push(half_dropped(&admin).await);
    }
    // Each of them sweeps once, as a process does, unless another one is at it.
    let mut alive = Vec::new();
    let begin = std::time::Instant::now();
    while !left.is_empty() {
        assert!(begin.elapsed() < std::time::Duration::from_mins(1), "never swept: {left:?}");
        let others = kitchen.others();
        let name = others.empty().await.unwrap();
        alive.push((others, name));
        let last = left.last().unwrap().clone();
        let round = std::time::Instant::now();
        while round.elapsed() < std::time::Duration::from_secs(2) && is_there(&admin, &last).await {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let mut still = Vec::new();
        for name in left {
            if is_there(&admin, &name).await {
                still.push(name);
            }
        }
        left = still;
    }
    for (others, name) in alive {
        assert!(is_alive(&admin, &name).await && is_there(&admin, &name).await, "{name} was swept away");
        others.remove(&name).await;
    }
}
