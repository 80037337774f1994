-- A tenant falls back to no edition when what was paid for ends.
alter table tenants add column edition_end_time timestamptz;

create index ix_tenants_edition_end_time on tenants (edition_end_time) where edition_end_time is not null;
