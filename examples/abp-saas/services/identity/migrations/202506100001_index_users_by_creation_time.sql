-- The list of users, the newest first, page by page.
create index ix_users_tenant_id_creation_time on users (tenant_id, creation_time desc, id) where not is_deleted;
