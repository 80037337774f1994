-- What there is to grant, and all of it that a role may have to the role `admin`: of the host the host's side, of a
-- tenant the tenant's. One file, so that a permission that is new here is granted, too.
insert into permission_groups (name, display_name)
values
    ('AbpIdentity', 'Identity'),
    ('AbpAccount', 'Account'),
    ('OpenIddictPro', 'OAuth'),
    ('FeatureManagement', 'Features'),
    ('SettingManagement', 'Settings'),
    ('LanguageManagement', 'Languages'),
    ('AuditLogging', 'Audit logs'),
    ('Saas', 'Tenants and editions'),
    ('AdministrationService', 'Administration'),
    ('ProductService', 'Products')
on conflict (name) do update set display_name = excluded.display_name
    where permission_groups.display_name <> excluded.display_name;

-- Of a name with more than two parts the shorter one is the parent; the first part is the group.
insert into permissions as present (group_name, name, parent_name, display_name, multi_tenancy_side, providers)
select split_part(name, '.', 1), name,
       case when name ~ '\..*\.' then regexp_replace(name, '\.[^.]*$', '') end,
       display_name, side, providers
from (values
    ('AbpIdentity.Roles', 'Roles', 'both', null::text[]),
    ('AbpIdentity.Roles.Create', 'Create roles', 'both', null),
    ('AbpIdentity.Roles.Update', 'Change roles', 'both', null),
    ('AbpIdentity.Roles.Delete', 'Delete roles', 'both', null),
    ('AbpIdentity.Roles.ManagePermissions', 'Grant to roles', 'both', null),
    ('AbpIdentity.Users', 'Users', 'both', null),
    ('AbpIdentity.Users.Create', 'Create users', 'both', null),
    ('AbpIdentity.Users.Update', 'Change users', 'both', null),
    ('AbpIdentity.Users.Delete', 'Delete users', 'both', null),
    ('AbpIdentity.Users.ManagePermissions', 'Grant to users', 'both', null),
    ('AbpIdentity.Users.Impersonation', 'Sign in as another user', 'both', null),
    -- Programs look users up; nobody does it for a role.
    ('AbpIdentity.UserLookup', 'Look users up', 'both', array['C']),
    ('AbpIdentity.OrganizationUnits', 'Organization units', 'both', null),
    ('AbpIdentity.OrganizationUnits.ManageOU', 'Change organization units', 'both', null),
    ('AbpIdentity.OrganizationUnits.ManageRoles', 'Roles of organization units', 'both', null),
    ('AbpIdentity.OrganizationUnits.ManageUsers', 'Users of organization units', 'both', null),
    ('AbpIdentity.ClaimTypes', 'Claim types', 'host', null),
    ('AbpIdentity.ClaimTypes.Create', 'Create claim types', 'host', null),
    ('AbpIdentity.ClaimTypes.Update', 'Change claim types', 'host', null),
    ('AbpIdentity.ClaimTypes.Delete', 'Delete claim types', 'host', null),
    ('AbpIdentity.SecurityLogs', 'Security logs', 'both', null),
    ('AbpIdentity.SettingManagement', 'Settings of identity', 'both', null),
    ('AbpAccount.SettingManagement', 'Settings of accounts', 'both', null),
    ('OpenIddictPro.Application', 'Clients', 'host', null),
    ('OpenIddictPro.Application.Create', 'Create clients', 'host', null),
    ('OpenIddictPro.Application.Update', 'Change clients', 'host', null),
    ('OpenIddictPro.Application.Delete', 'Delete clients', 'host', null),
    ('OpenIddictPro.Application.ManagePermissions', 'Grant to clients', 'host', null),
    ('OpenIddictPro.Scope', 'Scopes', 'host', null),
    ('OpenIddictPro.Scope.Create', 'Create scopes', 'host', null),
    ('OpenIddictPro.Scope.Update', 'Change scopes', 'host', null),
    ('OpenIddictPro.Scope.Delete', 'Delete scopes', 'host', null),
    ('FeatureManagement.ManageHostFeatures', 'Features of the host', 'host', null),
    ('SettingManagement.Emailing', 'Settings of mails', 'both', null),
    ('SettingManagement.Emailing.Test', 'Send a mail to try them', 'both', null),
    ('SettingManagement.TimeZone', 'Time zone', 'both', null),
    ('LanguageManagement.Languages', 'Languages', 'both', null),
    ('LanguageManagement.Languages.Create', 'Create languages', 'host', null),
    ('LanguageManagement.Languages.Edit', 'Change languages', 'both', null),
    ('LanguageManagement.Languages.ChangeDefault', 'Choose the language', 'both', null),
    ('LanguageManagement.Languages.Delete', 'Delete languages', 'host', null),
    ('LanguageManagement.LanguageTexts', 'Translations', 'both', null),
    ('LanguageManagement.LanguageTexts.Edit', 'Change translations', 'both', null),
    ('AuditLogging.AuditLogs', 'Audit logs', 'both', null),
    ('AuditLogging.AuditLogs.Export', 'Export audit logs', 'both', null),
    ('Saas.Tenants', 'Tenants', 'host', null),
    ('Saas.Tenants.Create', 'Create tenants', 'host', null),
    ('Saas.Tenants.Update', 'Change tenants', 'host', null),
    ('Saas.Tenants.Delete', 'Delete tenants', 'host', null),
    ('Saas.Tenants.ManageFeatures', 'Features of tenants', 'host', null),
    ('Saas.Tenants.ManageConnectionStrings', 'Databases of tenants', 'host', null),
    ('Saas.Editions', 'Editions', 'host', null),
    ('Saas.Editions.Create', 'Create editions', 'host', null),
    ('Saas.Editions.Update', 'Change editions', 'host', null),
    ('Saas.Editions.Delete', 'Delete editions', 'host', null),
    ('Saas.Editions.ManageFeatures', 'Features of editions', 'host', null),
    ('AdministrationService.HostDashboard', 'Dashboard of the host', 'host', null),
    ('AdministrationService.TenantDashboard', 'Dashboard of the tenant', 'tenant', null),
    ('AdministrationService.Announcements', 'Announcements', 'both', null),
    ('AdministrationService.Announcements.Create', 'Make announcements', 'both', null),
    ('AdministrationService.Announcements.Delete', 'Take announcements back', 'both', null),
    ('ProductService.Products', 'Products', 'both', null),
    ('ProductService.Products.Create', 'Create products', 'both', null),
    ('ProductService.Products.Edit', 'Change products', 'both', null),
    ('ProductService.Products.Delete', 'Delete products', 'both', null)
) as known (name, display_name, side, providers)
on conflict (name) do update
    set group_name = excluded.group_name,
        parent_name = excluded.parent_name,
        display_name = excluded.display_name,
        multi_tenancy_side = excluded.multi_tenancy_side,
        providers = excluded.providers
    where (present.group_name, present.parent_name, present.display_name, present.multi_tenancy_side, present.providers)
        is distinct from
          (excluded.group_name, excluded.parent_name, excluded.display_name, excluded.multi_tenancy_side,
           excluded.providers);

insert into permission_grants (tenant_id, name, provider_name, provider_key)
select nullif(:'tenant', ''), name, 'R', 'admin'
from permissions
where is_enabled
  and multi_tenancy_side in ('both', case when :'tenant' = '' then 'host' else 'tenant' end)
  and (providers is null or 'R' = any (providers))
on conflict do nothing;
