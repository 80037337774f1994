-- Counted up with each change: who changes a trip says which version he has seen.
alter table trips add column version bigint not null default 1;
