-- A changed admin_email moves the account, so this one updates. It has no password until one is set.
insert into admins (id, email, full_name)
values ('a_0194409bd7e87f90b182930415c6d701', :'admin_email', 'Administrator')
on conflict (id) do update
    set email = excluded.email, updated_at = current_timestamp
    where admins.email is distinct from excluded.email;
