-- The first administrator, of the host and of each tenant. `tenant` is empty for the host, whose rows have no tenant.
-- Who is there already stays as he is: his address and password are his own by now.
insert into roles (tenant_id, name, normalized_name, is_static, is_public)
values (nullif(:'tenant', ''), 'admin', 'ADMIN', true, true)
on conflict do nothing;

insert into users (tenant_id, user_name, normalized_user_name, name, email, normalized_email, password_hash)
values (nullif(:'tenant', ''), 'admin', 'ADMIN', 'admin', :'admin_email', upper(:'admin_email'), :'admin_password')
on conflict do nothing;

insert into user_roles (user_id, role_id, tenant_id)
select u.id, r.id, u.tenant_id
from users u
join roles r on r.tenant_id is not distinct from u.tenant_id and r.normalized_name = 'ADMIN'
where u.tenant_id is not distinct from nullif(:'tenant', '') and u.normalized_user_name = 'ADMIN'
on conflict do nothing;
