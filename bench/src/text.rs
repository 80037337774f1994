//! The text of SQL: how fast it is cut into tokens and statements, in this process.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use pgfleet_sql::{lexer, statement};

use crate::options::Options;
use crate::report::Report;

/// As much as a data migration that somebody should have split.
const BYTES: usize = 20_000_000;

/// What one core must do in a second.
const GOAL: f64 = 100.0;

pub(crate) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let script = script();
    let mut copy = vec![0; script.len()];
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..=options.rounds {
        for turn in 0..times.len() {
            let who = (round + turn) % times.len();
            let began = Instant::now();
            match who {
                0 => drop(black_box(lexer::tokens(black_box(&script)).map(|token| token.end ^ token.start).max())),
                1 => drop(black_box(statement::split(black_box(&script))?)),
                _ => black_box(&mut copy).copy_from_slice(black_box(script.as_bytes())),
            }
            let took = began.elapsed();
            if round > 0 {
                times[who].push(took);
            }
        }
    }
    let [lexed, split, copied] = &times;
    let limit = ("limit: a copy of the bytes", copied.as_slice());
    report.speed("(e) tokens of a script of 20 MB", script.len(), lexed, limit, GOAL);
    report.speed("(e) statements of a script of 20 MB", script.len(), split, limit, GOAL);
    Ok(())
}

/// Tables, functions, comments and rows in about the amounts that dumps and migrations have.
fn script() -> String {
    let mut text = String::with_capacity(BYTES + 10_000);
    let mut number = 0;
    while text.len() < BYTES {
        number += 1;
        group(&mut text, number);
    }
    text
}

fn group(text: &mut String, number: usize) {
    let _ = write!(
        text,
        "-- The orders of region {number}; what came before is in the archive.\n\
         CREATE TABLE IF NOT EXISTS sales.orders_{number} (\n    \
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n    \
             customer_id uuid NOT NULL REFERENCES sales.customers (id) ON DELETE CASCADE,\n    \
             state text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'paid', 'sent', 'returned')),\n    \
             total numeric(12, 2) NOT NULL DEFAULT 0.00 CHECK (total >= -1000.00),\n    \
             tags text[] NOT NULL DEFAULT '{{}}'::text[],\n    \
             \"placedAt\" timestamptz NOT NULL DEFAULT now() - interval '1 hour'\n);\n\n\
         CREATE UNIQUE INDEX ix_orders_{number}_customer ON sales.orders_{number} (customer_id, \"placedAt\" DESC)\n    \
             WHERE state <> 'returned';\n\
         COMMENT ON COLUMN sales.orders_{number}.state IS 'What the customer sees; it''s set by the trigger.';\n\n\
         /* Keeps the total of an order. The rows are locked in the order of their ids; see the\n   \
            notes on deadlocks. */\n\
         CREATE OR REPLACE FUNCTION sales.touch_{number}() RETURNS trigger LANGUAGE plpgsql AS $body$\n\
         DECLARE\n    changed integer := 0;\n\
         BEGIN\n    \
             -- Only what is new counts; \"old\" rows were counted before.\n    \
             IF NEW.state IS DISTINCT FROM OLD.state AND NEW.total > 0 THEN\n        \
                 UPDATE sales.regions SET total = total + NEW.total WHERE region_id = {number};\n        \
                 GET DIAGNOSTICS changed = ROW_COUNT;\n    \
             END IF;\n    \
             RETURN NEW;\n\
         END;\n$body$;\n\n\
         CREATE FUNCTION sales.open_{number}(since timestamptz) RETURNS bigint STABLE\n\
         BEGIN ATOMIC\n    \
             SELECT count(*) FILTER (WHERE CASE WHEN o.total > 10 THEN o.state = 'new' ELSE false END)\n    \
             FROM sales.orders_{number} AS o WHERE o.\"placedAt\" >= since AND o.tags @> ARRAY['open'];\n\
         END;\n\n\
         ALTER TABLE sales.orders_{number} ENABLE ROW LEVEL SECURITY, ADD COLUMN IF NOT EXISTS note text;\n\n\
         INSERT INTO sales.orders_{number} (customer_id, state, total, note) VALUES\n"
    );
    for row in 0..24 {
        let end = if row == 23 { ";\n\n" } else { ",\n" };
        let _ = write!(
            text,
            "    ('0190a1b2-{row:04x}-7c3d-8e4f-{number:012x}', 'paid', {}.{row:02}, 'Größe {row}, to the back door; \
             please ring twice.'){end}",
            number % 1000
        );
    }
    for row in 0..8 {
        let _ = writeln!(
            text,
            "UPDATE sales.orders_{number} SET note = E'line one\\nline two\\'s {row}', total = total * 1.{row} WHERE id = \
             {row} AND state <> 'returned';"
        );
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_of_statements_of_every_kind() {
        let mut text = String::new();
        group(&mut text, 7);
        let statements = statement::split(&text).unwrap();
        let keywords: Vec<&str> = statements.iter().map(statement::Statement::keyword).collect();
        assert_eq!(
            keywords[..7],
            [
                "CREATE TABLE",
                "CREATE UNIQUE INDEX",
                "COMMENT",
                "CREATE OR REPLACE FUNCTION",
                "CREATE FUNCTION",
                "ALTER TABLE",
                "INSERT"
            ]
        );
        assert_eq!(keywords[7..], ["UPDATE"; 8]);
        assert!((BYTES..BYTES + 10_000).contains(&script().len()));
    }
}
