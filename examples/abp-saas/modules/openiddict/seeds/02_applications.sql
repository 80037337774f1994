-- The clients, as the properties in the manifest say: a changed address or secret reaches those that are there, so this
-- updates. The host's only. What OpenIddict reads as permissions is made of grant types and scopes at the end.
with urls (name, url) as (
    select name, rtrim(url, '/')
    from (values
        ('web', :'web_url'), ('blazor', :'blazor_url'), ('blazor_server', :'blazor_server_url'),
        ('public_web', :'public_web_url'), ('angular', :'angular_url'), ('web_gateway', :'web_gateway_url'),
        ('public_web_gateway', :'public_web_gateway_url'), ('account', :'account_url'), ('identity', :'identity_url'),
        ('administration', :'administration_url'), ('saas', :'saas_url'), ('product', :'product_url')
    ) as given (name, url)
),
-- Confidential where there is a secret, which is a hash already. `callback` and `goodbye` are paths below each of `at`.
clients (client_id, display_name, client_secret, grant_types, scopes, at, callback, goodbye) as (values
    ('AbpSaas_Web', 'Web client', :'web_client_password',
     array['authorization_code', 'implicit'],
     array['AccountService', 'IdentityService', 'AdministrationService', 'SaasService', 'ProductService'],
     array['web'], '/signin-oidc', '/signout-callback-oidc'),
    ('AbpSaas_Blazor', 'Blazor client', null,
     array['authorization_code'],
     array['AccountService', 'IdentityService', 'AdministrationService', 'SaasService', 'ProductService'],
     array['blazor'], '/authentication/login-callback', '/authentication/logout-callback'),
    ('AbpSaas_BlazorServer', 'Blazor Server client', :'blazor_server_client_password',
     array['authorization_code', 'implicit'],
     array['AccountService', 'IdentityService', 'AdministrationService', 'SaasService', 'ProductService'],
     array['blazor_server'], '/signin-oidc', '/signout-callback-oidc'),
    ('AbpSaas_PublicWeb', 'Public web client', :'public_web_client_password',
     array['authorization_code', 'implicit'],
     array['AccountService', 'AdministrationService', 'ProductService'],
     array['public_web'], '/signin-oidc', '/signout-callback-oidc'),
    ('AbpSaas_Angular', 'Angular client', null,
     array['authorization_code', 'refresh_token', 'password', 'LinkLogin', 'Impersonation'],
     array['AccountService', 'IdentityService', 'AdministrationService', 'SaasService', 'ProductService'],
     array['angular'], '', ''),
    ('AbpSaas_AdministrationService', 'Administration service client', :'administration_client_password',
     array['client_credentials'],
     array['IdentityService'],
     array[]::text[], null, null),
    -- The documentation client: one for the Swagger pages of all gateways and services.
    ('WebGateway_Swagger', 'Swagger client', null,
     array['authorization_code'],
     array['AccountService', 'IdentityService', 'AdministrationService', 'SaasService', 'ProductService'],
     array['web_gateway', 'public_web_gateway', 'account', 'identity', 'administration', 'saas', 'product'],
     '/swagger/oauth2-redirect.html', null)
),
-- What a client needs for its grant types: a row counts when the client has all of its grant types.
needs (grant_types, permission) as (values
    (array['authorization_code'], 'ept:authorization'),
    (array['authorization_code'], 'rst:code'),
    (array['implicit'], 'ept:authorization'),
    (array['implicit'], 'rst:id_token'),
    (array['authorization_code', 'implicit'], 'rst:code id_token'),
    (array['authorization_code'], 'ept:token'),
    (array['client_credentials'], 'ept:token'),
    (array['password'], 'ept:token'),
    (array['refresh_token'], 'ept:token')
)
insert into openiddict_applications as present (
    client_id, client_secret, client_type, consent_type, display_name,
    redirect_uris, post_logout_redirect_uris, allowed_cors_origins, permissions
)
select
    c.client_id, c.client_secret,
    case when c.client_secret is null then 'public' else 'confidential' end,
    'implicit',
    c.display_name,
    places.callbacks, places.goodbyes,
    -- Only what runs in a browser calls from another origin.
    case when c.client_secret is null then places.origins else '[]' end,
    permitted.permissions
from clients c
cross join lateral (
    select
        coalesce(jsonb_agg(u.url || c.callback order by a.position) filter (where c.callback is not null), '[]'),
        coalesce(jsonb_agg(u.url || c.goodbye order by a.position) filter (where c.goodbye is not null), '[]'),
        coalesce(jsonb_agg(substring(u.url from '^[a-z]+://[^/]+') order by a.position), '[]')
    from unnest(c.at) with ordinality as a (name, position)
    join urls u on u.name = a.name
) as places (callbacks, goodbyes, origins)
cross join lateral (
    select jsonb_agg(distinct permission order by permission)
    from (
        select 'gt:' || unnest(c.grant_types)
        union all
        select 'scp:' || unnest(array['address', 'email', 'phone', 'profile', 'roles'] || c.scopes)
        union all
        select n.permission from needs n where c.grant_types @> n.grant_types
        union all
        select unnest(array['ept:introspection', 'ept:revocation'])
        union all
        select 'ept:end_session' where c.goodbye is not null
    ) as each (permission)
) as permitted (permissions)
where :'tenant' = ''
on conflict (client_id) do update
    set client_secret = excluded.client_secret,
        client_type = excluded.client_type,
        consent_type = excluded.consent_type,
        display_name = excluded.display_name,
        redirect_uris = excluded.redirect_uris,
        post_logout_redirect_uris = excluded.post_logout_redirect_uris,
        allowed_cors_origins = excluded.allowed_cors_origins,
        permissions = excluded.permissions,
        last_modification_time = current_timestamp
    where (present.client_secret, present.client_type, present.consent_type, present.display_name,
           present.redirect_uris, present.post_logout_redirect_uris, present.allowed_cors_origins, present.permissions)
        is distinct from
          (excluded.client_secret, excluded.client_type, excluded.consent_type, excluded.display_name,
           excluded.redirect_uris, excluded.post_logout_redirect_uris, excluded.allowed_cors_origins,
           excluded.permissions);
