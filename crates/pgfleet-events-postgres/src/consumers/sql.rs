//! The statements, with the schema's name in them.

use pgfleet_postgres::quote_ident;

#[derive(Debug)]
pub(crate) struct Sql {
    pub(super) lease: String,
    pub(super) commit: String,
    pub(super) leave: String,
    pub(super) offsets: String,
    pub(crate) reset: String,
    pub(super) forget: String,
}

impl Sql {
    pub(crate) fn new(schema: &str) -> Self {
        let s = quote_ident(schema);
        Self {
            lease: format!(
                "SELECT part, parts, epoch, tick, seq, lease_until \
                 FROM {s}.lease_parts($1, $2, $3, $4, $5, $6::bigint * interval '1 microsecond')"
            ),
            // The row of the lease is locked until it is committed, so who takes the part over waits for that, and
            // whoever comes behind him finds another epoch.
            commit: format!(
                "INSERT INTO {s}.consumer_offsets (group_name, part, tick, seq, committed_at) \
                 SELECT g.group_name, g.part, $4, $5, clock_timestamp() FROM ( \
                 SELECT group_name, part FROM {s}.consumer_groups WHERE group_name = $1 AND part = $2 AND epoch = $3 AND member = $6 \
                 FOR SHARE) AS g"
            ),
            leave: format!(
                "WITH gone AS (DELETE FROM {s}.consumer_members WHERE group_name = $1 AND member = $2) \
                 UPDATE {s}.consumer_groups SET member = NULL, lease_until = clock_timestamp() \
                 WHERE group_name = $1 AND member = $2"
            ),
            offsets: format!(
                "SELECT g.group_name, g.part, g.parts, CASE WHEN g.lease_until > clock_timestamp() THEN g.member END, \
                 g.epoch, o.tick, o.seq, o.committed_at, \
                 (SELECT t.first_position + t.events FROM {s}.ticks t ORDER BY t.tick DESC LIMIT 1) \
                 - {s}.dense_position(o.tick, o.seq) \
                 FROM {s}.consumer_groups g, LATERAL ( \
                 SELECT o.tick, o.seq, o.committed_at FROM {s}.consumer_offsets o \
                 WHERE o.group_name = g.group_name AND o.part = g.part ORDER BY o.id DESC LIMIT 1) AS o \
                 WHERE $1::text IS NULL OR g.group_name = $1 ORDER BY g.group_name, g.part"
            ),
            reset: format!("SELECT {s}.reset_group($1, $2, $3)"),
            forget: format!(
                "WITH members AS (DELETE FROM {s}.consumer_members WHERE group_name = $1), \
                 offsets AS (DELETE FROM {s}.consumer_offsets WHERE group_name = $1), \
                 parts AS (DELETE FROM {s}.consumer_groups WHERE group_name = $1 RETURNING part) \
                 SELECT count(*) FROM parts"
            ),
        }
    }
}
