//! Points in time in columns.

use pgfleet::values::Timestamp;
use sqlx::Row as _;

use crate::values_support::{both, chain, random};

fn times() -> Vec<Timestamp> {
    let micros = random(2000, &(Timestamp::MIN.micros()..=Timestamp::MAX.micros()));
    let times = micros.iter().map(|&micros| Timestamp::from_micros(micros).unwrap());
    times.chain([Timestamp::MIN, Timestamp::MAX, Timestamp::now()]).collect()
}

#[tokio::test]
async fn the_server_reads_and_writes_every_time_as_we_do() {
    let both = both("").await;
    let times = times();
    let texts: Vec<String> = times.iter().map(ToString::to_string).collect();
    let sql = "SELECT count(*) FILTER (WHERE a.time <> a.text::timestamptz), array_agg(a.text::timestamptz ORDER BY n) \
               FROM unnest($1::timestamptz[], $2::text[]) WITH ORDINALITY AS a (time, text, n)";
    let row = both.client.query_one(sql, &[&times, &texts]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, Vec<Timestamp>>(1)), (0, times.clone()));
    let row = sqlx::query(sql).bind(&times).bind(&texts).fetch_one(&both.pool).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<Vec<Timestamp>, _>(1)), (0, times));
}

#[tokio::test]
async fn columns_without_a_time_zone_hold_utc() {
    let both = both("CREATE TABLE times (z timestamptz, p timestamp)").await;
    let time: Timestamp = "2026-11-22T08:30:00.000001Z".parse().unwrap();
    both.client.batch_execute("SET TimeZone = 'Asia/Tokyo'").await.unwrap();
    let insert = "INSERT INTO times VALUES ($1, $2)";
    both.client.execute(insert, &[&time, &time]).await.unwrap();
    sqlx::query(insert).bind(time).bind(time).execute(&both.pool).await.unwrap();
    let select = "SELECT z, p, p::text FROM times WHERE p = $1 AND z = $2";
    let rows = both.client.query(select, &[&time, &time]).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!((row.get::<_, Timestamp>(0), row.get::<_, Timestamp>(1)), (time, time));
        assert_eq!(row.get::<_, String>(2), "2026-11-22 08:30:00.000001");
    }
    let rows = sqlx::query(select).bind(time).bind(time).fetch_all(&both.pool).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!((row.get::<Timestamp, _>(0), row.get::<Timestamp, _>(1)), (time, time));
    }
    // Without preparing, values come as texts.
    let row = sqlx::raw_sql("SELECT z, p FROM times").fetch_one(&both.pool).await.unwrap();
    assert_eq!((row.get::<Timestamp, _>(0), row.get::<Timestamp, _>(1)), (time, time));
}

#[tokio::test]
async fn what_is_no_point_in_time_is_an_error() {
    let both = both("").await;
    for ty in ["timestamptz", "timestamp"] {
        for (text, why) in [
            ("infinity", "infinity is not a point in time"),
            ("-infinity", "-infinity is not a point in time"),
            ("0044-03-15 12:00:00 BC", "outside of the years 1 to 9999"),
            ("10000-01-01 12:00:00", "outside of the years 1 to 9999"),
            ("294276-12-31 23:59:59", "outside of the years 1 to 9999"),
        ] {
            let sql = format!("SELECT '{text}'::{ty}, '2026-11-22'::date");
            let row = both.client.query_one(&sql, &[]).await.unwrap();
            let error = chain(&row.try_get::<_, Timestamp>(0).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
            assert!(row.try_get::<_, Timestamp>(1).is_err());
            let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&both.pool).await.unwrap();
            let error = chain(&row.try_get::<Timestamp, _>(0).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
            assert!(row.try_get::<Timestamp, _>(1).is_err());
        }
    }
}
