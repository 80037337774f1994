-- pgfleet: requires tenancy@202501070002
create table subscriptions (
    id uuid not null default gen_random_uuid(),
    tenant_id uuid not null,
    edition_id uuid not null,
    start_date date not null,
    end_date date,
    monthly_price numeric(10, 2) not null,
    currency char(3) not null default 'EUR',
    creation_time timestamptz not null default current_timestamp,
    constraint pk_subscriptions primary key (id),
    constraint fk_subscriptions_tenants foreign key (tenant_id) references tenancy.tenants (id),
    constraint fk_subscriptions_editions foreign key (edition_id) references tenancy.editions (id),
    constraint ck_subscriptions_end_date check (end_date is null or end_date > start_date),
    constraint ck_subscriptions_monthly_price check (monthly_price >= 0)
);

create index ix_subscriptions_tenant_id on subscriptions (tenant_id);

create index ix_subscriptions_edition_id on subscriptions (edition_id);
