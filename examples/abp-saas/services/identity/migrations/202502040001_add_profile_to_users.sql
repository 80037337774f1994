-- pgfleet: requires user@202501070001
-- What this solution wants to know beyond the module: columns of ours in its table, in a migration of ours.
alter table users
    add column title varchar(64),
    add column time_zone varchar(64) not null default 'UTC',
    add column preferred_culture varchar(10);
