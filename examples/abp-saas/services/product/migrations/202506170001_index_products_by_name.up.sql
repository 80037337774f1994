-- pgfleet: no-transaction
-- pgfleet: lock_timeout=30s
-- Without stopping those who sell meanwhile.
create index concurrently ix_products_tenant_id_name on products (tenant_id, lower(name)) where not is_deleted;
