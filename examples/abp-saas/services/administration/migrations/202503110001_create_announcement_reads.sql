create table announcement_reads (
    announcement_id uuid not null,
    user_id uuid not null,
    tenant_id varchar(63),
    creation_time timestamptz not null default current_timestamp,
    constraint pk_announcement_reads primary key (announcement_id, user_id),
    constraint fk_announcement_reads_announcements foreign key (announcement_id)
        references announcements (id) on delete cascade
);

comment on column announcement_reads.user_id is 'id of a user in the identity service';

create index ix_announcement_reads_user_id on announcement_reads (user_id);
