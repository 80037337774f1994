-- Who may act for whom, from when until when.
create table user_delegations (
    id uuid not null default gen_random_uuid(),
    tenant_id varchar(63),
    source_user_id uuid not null,
    target_user_id uuid not null,
    start_time timestamptz not null,
    end_time timestamptz not null,
    creation_time timestamptz not null default current_timestamp,
    constraint pk_user_delegations primary key (id),
    constraint fk_user_delegations_source_users foreign key (source_user_id) references users (id) on delete cascade,
    constraint fk_user_delegations_target_users foreign key (target_user_id) references users (id) on delete cascade,
    constraint ck_user_delegations_end_time check (end_time > start_time),
    constraint ck_user_delegations_target_user_id check (target_user_id <> source_user_id)
);

create index ix_user_delegations_source_user_id on user_delegations (source_user_id);

create index ix_user_delegations_target_user_id on user_delegations (target_user_id);
