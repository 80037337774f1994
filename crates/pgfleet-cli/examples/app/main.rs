//! The program of the guide `docs/src/guides/rust-migrations.md`, which shows its parts.

use pgfleet::Service;
use pgfleet::{Backfill, Batch, Db, ForeignKey, Migration, Schema, SchemaMigration, Seeder, StepResult};

struct CreateOffers;

impl SchemaMigration for CreateOffers {
    fn id(&self) -> &'static str {
        "2_create_offers"
    }

    fn up(&self, schema: &mut Schema) {
        schema.sql("create table offers (id bigint primary key, item_id bigint not null, label text not null)");
        schema.index("offers", &["item_id"]);
        schema.foreign_key(ForeignKey::new("offers", "item_id", "items"));
    }

    fn down(&self, schema: &mut Schema) {
        schema.sql("drop table offers");
    }
}

struct OfferTheCheapest;

impl Migration for OfferTheCheapest {
    fn id(&self) -> &'static str {
        "3_offer_the_cheapest"
    }

    async fn up(&self, db: &Db<'_>) -> StepResult {
        for row in db.query("select id, name from items order by price limit 3", &[]).await? {
            let (id, name): (i64, String) = (row.get(0), row.get(1));
            let label = format!("Now: {}", name.to_uppercase());
            db.execute("insert into offers values ($1, $1, $2)", &[&id, &label]).await?;
        }
        Ok(())
    }

    fn is_reversible(&self) -> bool {
        true
    }

    async fn down(&self, db: &Db<'_>) -> StepResult {
        db.execute("delete from offers", &[]).await?;
        Ok(())
    }
}

struct RoundPrices;

impl Backfill for RoundPrices {
    type Cursor = i64;

    fn id(&self) -> &'static str {
        "4_round_prices"
    }

    async fn batch(&self, db: &Db<'_>, after: Option<i64>) -> StepResult<Batch<i64>> {
        let sql = "with part as (select id from items where id > $1 order by id limit 1000),
                        done as (update items set price = round(price) from part where items.id = part.id)
                   select max(id), count(*) from part";
        let row = db.query_one(sql, &[&after.unwrap_or(0)]).await?;
        let (last, rows): (Option<i64>, i64) = (row.get(0), row.get(1));
        Ok(Batch::new(rows, last))
    }
}

struct FirstOffer;

impl Seeder for FirstOffer {
    fn name(&self) -> &'static str {
        "10_first_offer"
    }

    fn properties(&self) -> &[&str] {
        &["first_offer"]
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        let label = db.property("first_offer")?;
        let sql = "insert into offers values (0, 1, $1) on conflict (id) do update set label = excluded.label";
        db.execute(sql, &[&label]).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), pgfleet::Error> {
    let service = Service::builder("app")
        .migrations(pgfleet::migrations!("examples/app/migrations"))
        .migration(CreateOffers)
        .migration(OfferTheCheapest)
        .migration(RoundPrices)
        .seeder(FirstOffer)
        .start()
        .await?;
    println!("{} is ready", service.name());
    Ok(())
}
