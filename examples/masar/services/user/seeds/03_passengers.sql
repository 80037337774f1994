insert into passengers (id, phone_number, full_name, is_phone_verified, is_profile_complete)
values
    ('p_0194409ac5d67e7fa071829304b5c601', '+201100000001', 'Salma Nabil', true, true),
    ('p_0194409ac5d67e7fa071829304b5c602', '+201100000002', 'Karim Fathy', true, true),
    ('p_0194409ac5d67e7fa071829304b5c603', '+201100000003', null, false, false)
on conflict do nothing;
