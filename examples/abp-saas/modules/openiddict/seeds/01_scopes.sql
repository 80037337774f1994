-- One scope for each service, and for the account pages. The host's only.
insert into openiddict_scopes (name, display_name, resources)
select name, regexp_replace(name, 'Service$', ' service'), jsonb_build_array(name)
from unnest(array['AccountService', 'IdentityService', 'AdministrationService', 'SaasService', 'ProductService'])
    as name
where :'tenant' = ''
on conflict (name) do update
    set display_name = excluded.display_name, resources = excluded.resources
    where (openiddict_scopes.display_name, openiddict_scopes.resources)
        is distinct from (excluded.display_name, excluded.resources);
