-- The trip service's seeds use these ids; no foreign key reaches across databases.
insert into drivers (id, phone_number, full_name, date_of_birth, is_phone_verified, is_profile_complete)
values
    ('d_01944098a1b27c3d8e4f5a6b7c8d9e01', '+201000000001', 'Omar Hassan', '1985-03-14', true, true),
    ('d_01944098a1b27c3d8e4f5a6b7c8d9e02', '+201000000002', 'Mona Adel', '1990-11-02', true, true),
    ('d_01944098a1b27c3d8e4f5a6b7c8d9e03', '+201000000003', null, null, false, false)
on conflict do nothing;
