insert into vehicles (id, driver_id, plate_number, make, model, color, model_year, seat_count)
values
    ('v_01944099b3c47d5e9f60718293a4b501', 'd_01944098a1b27c3d8e4f5a6b7c8d9e01', 'CAI-1001', 'Toyota', 'HiAce', 'white', 2021, 12),
    ('v_01944099b3c47d5e9f60718293a4b502', 'd_01944098a1b27c3d8e4f5a6b7c8d9e02', 'ALX-2002', 'Kia', 'Carnival', 'grey', 2023, 7)
on conflict do nothing;
