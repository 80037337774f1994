-- Updates, so that an edit here reaches databases that were seeded before.
insert into openiddict_scopes (id, name, display_name, description, resources)
values
    ('scope_019440a1435475f617e85960718290d1', 'users', 'User profiles', 'Read and change profiles', '["user"]'),
    ('scope_019440a1435475f617e85960718290d2', 'trips', 'Trips', 'Search trips, book and cancel seats', '["trip"]'),
    ('scope_019440a1435475f617e85960718290d3', 'notifications', 'Notifications', 'Register devices, read the history', '["notifications"]')
on conflict (name) do update
    set display_name = excluded.display_name,
        description = excluded.description,
        resources = excluded.resources;
