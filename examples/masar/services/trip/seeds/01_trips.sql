-- Vehicles and drivers as the user service seeds them. Fixed times: the same rows on every machine.
insert into trips
    (id, from_city, to_city, departure_time_utc, arrival_time_utc, description, price, status,
     available_seats, total_seats, vehicle_id, driver_id)
values
    ('t_0194409ce9fa70a1c29304152637e801', 'Cairo', 'Alexandria', '2030-01-15 06:00:00+00', null,
     'By the desert road', 180.00, 'Scheduled', 9, 12,
     'v_01944099b3c47d5e9f60718293a4b501', 'd_01944098a1b27c3d8e4f5a6b7c8d9e01'),
    ('t_0194409ce9fa70a1c29304152637e802', 'Alexandria', 'Marsa Matruh', '2030-01-16 07:30:00+00', null,
     null, 240.50, 'Scheduled', 7, 7,
     'v_01944099b3c47d5e9f60718293a4b502', 'd_01944098a1b27c3d8e4f5a6b7c8d9e02'),
    ('t_0194409ce9fa70a1c29304152637e803', 'Cairo', 'Ismailia', '2025-01-10 05:00:00+00', '2025-01-10 06:45:00+00',
     null, 95.00, 'Completed', 10, 12,
     'v_01944099b3c47d5e9f60718293a4b501', 'd_01944098a1b27c3d8e4f5a6b7c8d9e01')
on conflict do nothing;
