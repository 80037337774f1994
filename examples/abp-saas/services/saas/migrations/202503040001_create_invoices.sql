create table invoices (
    id uuid not null default gen_random_uuid(),
    subscription_id uuid not null,
    period_start date not null,
    period_end date not null,
    amount numeric(10, 2) not null,
    currency char(3) not null,
    payment_time timestamptz,
    creation_time timestamptz not null default current_timestamp,
    constraint pk_invoices primary key (id),
    constraint fk_invoices_subscriptions foreign key (subscription_id) references subscriptions (id),
    constraint uq_invoices_subscription_id_period_start unique (subscription_id, period_start),
    constraint ck_invoices_period_end check (period_end > period_start)
);
