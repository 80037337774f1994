//! Ids in columns.

use pgfleet::values::Uid;
use sqlx::Row as _;

use crate::values_support::{Trip, TripId, both, chain};

const TABLE: &str = "CREATE TABLE ids (v varchar(50), t text, c char(50), u uuid, n text)";

#[tokio::test]
async fn ids_go_into_columns_and_come_back() {
    let both = both(TABLE).await;
    let (id, other) = (TripId::generate(), TripId::generate());
    let uid: Uid<Trip> = id.into();
    let insert = "INSERT INTO ids VALUES ($1, $2, $3, $4, $5)";
    let none: Option<TripId> = None;
    both.client.execute(insert, &[&id, &id, &id, &uid, &none]).await.unwrap();
    sqlx::query(insert).bind(id).bind(id).bind(id).bind(uid).bind(none).execute(&both.pool).await.unwrap();

    let select = "SELECT v, t, c, u, n, v AS text, u::text AS uuid FROM ids WHERE v = $1 AND c = $1 AND u = $2";
    let rows = both.client.query(select, &[&id, &uid]).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!([row.get::<_, TripId>(0), row.get(1), row.get(2)], [id; 3]);
        assert_eq!((row.get::<_, Uid<Trip>>(3), row.get::<_, Option<TripId>>(4)), (uid, None));
        assert_eq!((row.get("text"), row.get("uuid")), (id.to_string(), uid.to_string()));
    }
    let rows = sqlx::query(select).bind(id).bind(uid).fetch_all(&both.pool).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!([row.get::<TripId, _>(0), row.get(1), row.get(2)], [id; 3]);
        assert_eq!((row.get::<Uid<Trip>, _>(3), row.get::<Option<TripId>, _>(4)), (uid, None));
    }
    // Without preparing, values come as texts.
    let row = sqlx::raw_sql("SELECT v, c, u FROM ids").fetch_one(&both.pool).await.unwrap();
    assert_eq!((row.get::<TripId, _>(0), row.get::<TripId, _>(1), row.get::<Uid<Trip>, _>(2)), (id, id, uid));

    let any = "SELECT count(*) FROM ids WHERE v = ANY($1) AND u = ANY($2)";
    let (ids, uids) = (vec![other, id], vec![uid, other.into()]);
    assert_eq!(both.client.query_one(any, &[&ids, &uids]).await.unwrap().get::<_, i64>(0), 2);
    let counted: i64 = sqlx::query_scalar(any).bind(&ids).bind(&uids).fetch_one(&both.pool).await.unwrap();
    assert_eq!(counted, 2);
    let arrays = "SELECT array_agg(v), array_agg(u) FROM ids";
    let row = both.client.query_one(arrays, &[]).await.unwrap();
    assert_eq!((row.get::<_, Vec<TripId>>(0), row.get::<_, Vec<Uid<Trip>>>(1)), (vec![id; 2], vec![uid; 2]));
    let row = sqlx::query(arrays).fetch_one(&both.pool).await.unwrap();
    assert_eq!((row.get::<Vec<TripId>, _>(0), row.get::<Vec<Uid<Trip>>, _>(1)), (vec![id; 2], vec![uid; 2]));
}

#[tokio::test]
async fn an_id_of_something_else_is_an_error_and_so_is_a_column_of_another_type() {
    let both = both(TABLE).await;
    both.client.execute("INSERT INTO ids (v) VALUES ('d_0193abcdef0123456789abcdef012345')", &[]).await.unwrap();
    let row = both.client.query_one("SELECT v, 7 AS n FROM ids", &[]).await.unwrap();
    let expected = "is not the id of a Trip: t_ and 32 digits";
    let error = chain(&row.try_get::<_, TripId>(0).unwrap_err());
    assert!(error.contains(expected), "{error}");
    assert!(row.try_get::<_, TripId>(1).is_err());
    assert!(row.try_get::<_, Uid<Trip>>(0).is_err());
    let row = sqlx::query("SELECT v, 7 AS n FROM ids").fetch_one(&both.pool).await.unwrap();
    let error = chain(&row.try_get::<TripId, _>(0).unwrap_err());
    assert!(error.contains(expected), "{error}");
    assert!(row.try_get::<TripId, _>(1).is_err());
    let error = chain(&row.try_get::<Uid<Trip>, _>(0).unwrap_err());
    assert!(error.contains("not compatible"), "{error}");
}
