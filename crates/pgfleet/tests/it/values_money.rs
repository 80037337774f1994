//! Money in columns.

use pgfleet::values::Money;
use sqlx::Row as _;

use crate::values_support::{both, chain, random};

fn amounts() -> Vec<Money> {
    let mut cents = random(2000, &(Money::MIN.cents()..=Money::MAX.cents()));
    // Where groups of four digits begin and end.
    for around in [0, 1, 99, 100, 9_999, 10_000, 999_999, 1_000_000, 99_999_999, 100_000_000, 9_999_999_990] {
        cents.extend((-2..=2).flat_map(|near| [around + near, -around - near]));
    }
    cents.iter().map(|&cents| Money::from_cents(cents).unwrap()).collect()
}

#[tokio::test]
async fn the_server_reads_and_writes_every_amount_as_we_do() {
    let both = both("CREATE TABLE amounts (n int, fare numeric(10,2))").await;
    let amounts = amounts();
    let texts: Vec<String> = amounts.iter().map(ToString::to_string).collect();

    // Ours, as the server understands them.
    let sql = "SELECT array_agg(fare::text ORDER BY n) FROM unnest($1::numeric[]) WITH ORDINALITY AS a (fare, n)";
    let read: Vec<String> = both.client.query_one(sql, &[&amounts]).await.unwrap().get(0);
    assert_eq!(read, texts);
    let read: Vec<String> = sqlx::query_scalar(sql).bind(&amounts).fetch_one(&both.pool).await.unwrap();
    assert_eq!(read, texts);

    // The server's, also with fewer and more decimals, as we understand them.
    for ty in ["numeric(10,2)", "numeric", "numeric(30,12)"] {
        let sql =
            format!("SELECT fare::{ty} AS fare FROM unnest($1::text[]) WITH ORDINALITY AS a (fare, n) ORDER BY n");
        let rows = both.client.query(&sql, &[&texts]).await.unwrap();
        let read: Vec<Money> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(read, amounts, "{ty}");
        let sql = sqlx::AssertSqlSafe(sql);
        let read: Vec<Money> = sqlx::query_scalar(sql).bind(&texts).fetch_all(&both.pool).await.unwrap();
        assert_eq!(read, amounts, "{ty}");
    }

    // Byte for byte as the server's own: equal values are equal in an index and in a hash, too.
    let sql = "SELECT bool_and(numeric_send(fare) = numeric_send(text::numeric(10,2))) \
               FROM unnest($1::numeric[], $2::text[]) AS a (fare, text)";
    assert!(both.client.query_one(sql, &[&amounts, &texts]).await.unwrap().get::<_, bool>(0));

    let insert = "INSERT INTO amounts VALUES (1, $1)";
    for amount in [Money::MIN, Money::ZERO, Money::MAX] {
        both.client.execute(insert, &[&amount]).await.unwrap();
        sqlx::query(insert).bind(amount).execute(&both.pool).await.unwrap();
    }
    let sum = "SELECT count(*) FROM amounts WHERE fare = $1 OR fare = -99999999.99";
    assert_eq!(both.client.query_one(sum, &[&Money::MAX]).await.unwrap().get::<_, i64>(0), 4);
    let row =
        sqlx::raw_sql("SELECT max(fare), 12.5000, NULL::numeric FROM amounts").fetch_one(&both.pool).await.unwrap();
    assert_eq!(
        (row.get::<Money, _>(0), row.get::<Money, _>(1), row.get::<Option<Money>, _>(2)),
        (Money::MAX, "12.5".parse().unwrap(), None)
    );
}

#[tokio::test]
async fn what_is_no_amount_is_an_error() {
    let both = both("").await;
    for (number, why) in [
        ("0.001", "more than two decimals"),
        ("-0.125", "more than two decimals"),
        ("1e-30", "more than two decimals"),
        ("99999999.991", "more than two decimals"),
        ("'NaN'", "NaN is not"),
        ("'Infinity'", "Infinity is not"),
        ("'-Infinity'", "Infinity is not"),
        ("100000000", "at most 99999999.99"),
        ("-100000000", "at most 99999999.99"),
        ("1e30", "at most 99999999.99"),
    ] {
        let sql = format!("SELECT {number}::numeric");
        let row = both.client.query_one(&sql, &[]).await.unwrap();
        let error = chain(&row.try_get::<_, Money>(0).unwrap_err());
        assert!(error.contains(why), "{number}: {error}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&both.pool).await.unwrap();
        let error = chain(&row.try_get::<Money, _>(0).unwrap_err());
        assert!(error.contains(why), "{number}: {error}");
    }
    // Not from columns that are not exact.
    for ty in ["float8", "int8", "money", "text"] {
        let sql = format!("SELECT 12::int::text::{ty}");
        let row = both.client.query_one(&sql, &[]).await.unwrap();
        assert!(row.try_get::<_, Money>(0).is_err(), "{ty}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&both.pool).await.unwrap();
        assert!(row.try_get::<Money, _>(0).is_err(), "{ty}");
    }
}
