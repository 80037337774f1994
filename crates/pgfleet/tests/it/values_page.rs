//! Lists that are read page by page.

use pgfleet::values::{Cursor, Key, Keyset, Money, Page, PageQuery, PageRequest, Table, Timestamp};
use proptest::prelude::*;
use tokio_postgres::Client;

use crate::values_support::{Both, TripId, both, random};

const TRIPS: Table = Table::new("trips");
const TABLE: &str = "CREATE TABLE trips (id varchar(50) PRIMARY KEY, driver text NOT NULL DEFAULT 'd', departs_at timestamptz NOT NULL, \
                     fare numeric(10,2) NOT NULL, is_deleted boolean NOT NULL DEFAULT false)";

type AllKeys = (Money, Timestamp, TripId);

/// Fares and times are few, so that many rows are equal in them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    id: TripId,
    departs_at: Timestamp,
    fare: Money,
}

impl Row {
    fn keys(&self) -> AllKeys {
        (self.fare, self.departs_at, self.id)
    }
}

fn row() -> impl Strategy<Value = Row> {
    (0_i64..4, 0_i64..3, any::<u128>()).prop_map(|(cents, micros, id)| Row {
        id: TripId::from_uuid(pgfleet::values::Uuid::from_u128(id)),
        departs_at: Timestamp::from_micros(micros).unwrap(),
        fare: Money::from_cents(cents).unwrap(),
    })
}

async fn insert(client: &Client, rows: &[Row]) {
    let ids: Vec<TripId> = rows.iter().map(|row| row.id).collect();
    let times: Vec<Timestamp> = rows.iter().map(|row| row.departs_at).collect();
    let fares: Vec<Money> = rows.iter().map(|row| row.fare).collect();
    let sql = "INSERT INTO trips (id, departs_at, fare) SELECT * FROM unnest($1::varchar[], $2::timestamptz[], $3::numeric[])";
    client.execute(sql, &[&ids, &times, &fares]).await.unwrap();
}

fn select() -> pgfleet::values::Sql {
    TRIPS.select("id, departs_at, fare").and("driver = $1")
}

/// One page, with tokio-postgres.
async fn page(client: &Client, request: &PageRequest<AllKeys>) -> Page<Row> {
    let sql = request.sql(select(), 2);
    let rows = client.query(&*sql, &request.parameters(&[&"d"])).await.unwrap();
    let rows = rows.iter().map(|row| Row { id: row.get(0), departs_at: row.get(1), fare: row.get(2) });
    request.page(rows.collect(), Row::keys)
}

/// One page, with sqlx.
async fn page_of_sqlx(pool: &sqlx::PgPool, request: &PageRequest<AllKeys>) -> Page<Row> {
    let query = request.bind(sqlx::query_as(request.sql(select(), 2)).bind("d"));
    let rows: Vec<(TripId, Timestamp, Money)> = query.fetch_all(pool).await.unwrap();
    let rows = rows.into_iter().map(|(id, departs_at, fare)| Row { id, departs_at, fare });
    request.page(rows.collect(), Row::keys)
}

fn query(limit: u32, cursor: Option<Cursor>) -> PageQuery {
    PageQuery { limit: Some(limit), cursor }
}

const UP: Keyset<AllKeys> =
    Keyset::new(&[Key::ascending("fare"), Key::ascending("departs_at"), Key::ascending("id")]).limits(10, 1000);
const DOWN: Keyset<AllKeys> =
    Keyset::new(&[Key::descending("fare"), Key::descending("trips.departs_at"), Key::descending("id")])
        .limits(10, 1000);
const MIXED: Keyset<AllKeys> =
    Keyset::new(&[Key::descending("fare"), Key::ascending("departs_at"), Key::descending("id")]).limits(10, 1000);

/// The whole list in its order, as the program sorts it.
fn sorted(rows: &[Row], keyset: usize) -> Vec<Row> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| match keyset {
        0 => a.keys().cmp(&b.keys()),
        1 => b.keys().cmp(&a.keys()),
        _ => b.fare.cmp(&a.fare).then(a.departs_at.cmp(&b.departs_at)).then(b.id.cmp(&a.id)),
    });
    rows
}

#[tokio::test]
async fn pages_of_every_size_make_the_list_while_rows_come_and_go() {
    let Both { client, pool, database: _database } = both(TABLE).await;
    let old = random(60, &row());
    for (number, keyset) in [UP, DOWN, MIXED].into_iter().enumerate() {
        let expected = sorted(&old, number);
        for size in [1, 2, 3, 7, 30, 59, 60, 61] {
            client.batch_execute("TRUNCATE trips").await.unwrap();
            insert(&client, &old).await;
            let (mut forward, mut pages, mut cursor) = (Vec::new(), Vec::new(), None);
            let mut added = Vec::new();
            loop {
                let request = keyset.request(&query(size, cursor.take())).unwrap();
                let page =
                    if size % 2 == 0 { page_of_sqlx(&pool, &request).await } else { page(&client, &request).await };
                assert!(page.items.len() <= usize::try_from(size).unwrap());
                assert_eq!(page.previous.is_some(), !pages.is_empty());
                forward.extend(page.items.clone());
                cursor.clone_from(&page.next);
                pages.push(page);
                if cursor.is_none() {
                    break;
                }
                // Others come anywhere in the list; after a while no more, so that it ends.
                if added.len() < 100 {
                    let new = random(2, &row());
                    insert(&client, &new).await;
                    added.extend(new);
                }
                // The row that the cursor names may go.
                let last = forward.last().unwrap();
                client.execute("DELETE FROM trips WHERE id = $1", &[&last.id]).await.unwrap();
            }
            assert!(forward.len() >= old.len());
            let mut unique = forward.clone();
            unique.sort_by_key(|row| row.id);
            unique.dedup();
            assert_eq!(unique.len(), forward.len(), "no row twice");
            assert_eq!(forward, sorted(&forward, number), "in order");
            let found: Vec<Row> = forward.iter().filter(|row| old.contains(row)).cloned().collect();
            assert_eq!(found, expected, "no old row is left out, {size}");
            assert!(forward.iter().all(|row| old.contains(row) || added.contains(row)));
        }
    }
}

#[tokio::test]
async fn going_back_shows_the_same_pages_again() {
    let Both { client, pool, database: _database } = both(TABLE).await;
    let rows = random(23, &row());
    insert(&client, &rows).await;
    for (number, keyset) in [UP, DOWN, MIXED].into_iter().enumerate() {
        let expected = sorted(&rows, number);
        let (mut pages, mut cursor): (Vec<Page<Row>>, _) = (Vec::new(), None);
        loop {
            let page = page(&client, &keyset.request(&query(5, cursor.take())).unwrap()).await;
            cursor.clone_from(&page.next);
            pages.push(page);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(pages.iter().map(|page| page.items.len()).collect::<Vec<_>>(), [5, 5, 5, 5, 3]);
        assert_eq!(pages.iter().flat_map(|page| page.items.clone()).collect::<Vec<_>>(), expected);
        let mut back = pages.last().unwrap().previous.clone();
        for before in pages.iter().rev().skip(1) {
            let request = keyset.request(&query(5, back)).unwrap();
            let page = if number == 0 { page_of_sqlx(&pool, &request).await } else { page(&client, &request).await };
            assert_eq!((&page.items, &page.previous), (&before.items, &before.previous));
            assert_eq!(page.next, before.next, "and forward again");
            back = page.previous;
        }
        assert_eq!(back, None);
    }
}

#[tokio::test]
async fn a_list_without_rows_has_one_page_and_a_full_one_no_empty_last_one() {
    let Both { client, database: _database, .. } = both(TABLE).await;
    let empty = page(&client, &UP.request(&PageQuery::default()).unwrap()).await;
    assert_eq!(empty, Page { items: Vec::new(), next: None, previous: None });
    insert(&client, &random(10, &row())).await;
    let full = page(&client, &UP.request(&PageQuery::default()).unwrap()).await;
    assert_eq!((full.items.len(), &full.next, &full.previous), (10, &None, &None));
    let ids = full.map(|row| row.id.to_string());
    let json = serde_json::to_value(&ids).unwrap();
    assert_eq!((json["items"].as_array().unwrap().len(), &json["next"]), (10, &serde_json::Value::Null));
}

#[tokio::test]
async fn a_page_is_found_by_the_index() {
    let Both { client, database: _database, .. } = both(TABLE).await;
    client.batch_execute("CREATE INDEX by_all ON trips (fare DESC, departs_at, id DESC); SET enable_seqscan = off; SET enable_bitmapscan = off").await.unwrap();
    insert(&client, &random(200, &row())).await;
    client.batch_execute("ANALYZE trips").await.unwrap();
    let first = page(&client, &MIXED.request(&PageQuery::default()).unwrap()).await;
    let request = MIXED.request(&query(5, first.next)).unwrap();
    let sql = format!("EXPLAIN {}", &*request.sql(select(), 2));
    let plan = client.query(&sql, &request.parameters(&[&"d"])).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan using by_all") && plan.contains("Index Cond: (fare <="), "{plan}");
    assert!(!plan.contains("Sort"), "{plan}");
}

#[test]
fn a_cursor_of_another_list_or_of_nobody_is_refused() {
    let request = UP.request(&PageQuery::default()).unwrap();
    let page = request.page(random(11, &row()), Row::keys);
    let cursor = page.next.unwrap();
    assert!(UP.request(&query(5, Some(cursor.clone()))).is_ok());
    let error = DOWN.request(&query(5, Some(cursor.clone()))).unwrap_err();
    assert_eq!(error.to_string(), "this cursor is of another list");
    for text in ["", "x", "'; DROP TABLE trips; --", &cursor.as_str()[1..]] {
        let query: PageQuery = serde_json::from_value(serde_json::json!({ "limit": 5, "cursor": text })).unwrap();
        let error = UP.request(&query).unwrap_err().to_string();
        assert_eq!(error, "this is not a cursor as it was handed out", "{text}");
    }
}
