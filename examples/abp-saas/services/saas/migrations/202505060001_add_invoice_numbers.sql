-- Without gaps is the business of whoever draws them; here they are only unique.
alter table invoices add column number varchar(32);

update invoices set number = 'R-' || to_char(creation_time at time zone 'UTC', 'YYYYMMDD') || '-' || left(id::text, 8);

alter table invoices
    alter column number set not null,
    add constraint uq_invoices_number unique (number);
