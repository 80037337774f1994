-- No row carries a secret: the apps are public clients, and the gateway's hash is set by whoever operates it.
-- That is why client_secret is not among the columns that an edited file updates.
insert into openiddict_applications (id, client_id, display_name, permissions, requirements, type)
values
    ('app_019440a2556676070809a60718293ae1', 'masar-driver-app', 'Masar for drivers',
     '["ept:authorization", "ept:token", "gt:authorization_code", "gt:refresh_token", "rst:code", "scp:users", "scp:trips", "scp:notifications"]',
     '["ft:pkce"]', 'public'),
    ('app_019440a2556676070809a60718293ae2', 'masar-passenger-app', 'Masar for passengers',
     '["ept:authorization", "ept:token", "gt:authorization_code", "gt:refresh_token", "rst:code", "scp:users", "scp:trips", "scp:notifications"]',
     '["ft:pkce"]', 'public'),
    ('app_019440a2556676070809a60718293ae3', 'masar-gateway', 'Masar API gateway',
     '["ept:token", "ept:introspection", "gt:client_credentials", "scp:users", "scp:trips", "scp:notifications"]',
     null, 'confidential')
on conflict (client_id) do update
    set display_name = excluded.display_name,
        permissions = excluded.permissions,
        requirements = excluded.requirements,
        type = excluded.type;
