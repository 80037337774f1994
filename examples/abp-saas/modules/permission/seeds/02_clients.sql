-- The administration service asks the identity service about users, as a client. The host's only.
insert into permission_grants (tenant_id, name, provider_name, provider_key)
select null, 'AbpIdentity.Users', 'C', 'AbpSaas_AdministrationService'
where :'tenant' = ''
on conflict do nothing;
