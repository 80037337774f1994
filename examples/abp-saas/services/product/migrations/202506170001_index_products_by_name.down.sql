-- pgfleet: no-transaction
-- pgfleet: lock_timeout=30s
drop index concurrently ix_products_tenant_id_name;
