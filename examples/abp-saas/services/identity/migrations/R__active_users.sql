-- Who can sign in, and as what. Written anew whenever this file changes.
create or replace view active_users as
select u.tenant_id, u.id, u.user_name, u.email, u.preferred_culture,
       coalesce(array_agg(r.name order by r.name) filter (where r.id is not null), '{}') as roles
from users u
left join user_roles ur on ur.user_id = u.id
left join roles r on r.id = ur.role_id
where u.is_active and not u.is_deleted
group by u.id;
