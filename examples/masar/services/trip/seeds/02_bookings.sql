insert into bookings (id, trip_id, passenger_id, seat_count, total_price, status)
values
    ('b_0194409dfb0c71b2d3a4152637489901', 't_0194409ce9fa70a1c29304152637e801', 'p_0194409ac5d67e7fa071829304b5c601', 2, 360.00, 'Confirmed'),
    ('b_0194409dfb0c71b2d3a4152637489902', 't_0194409ce9fa70a1c29304152637e801', 'p_0194409ac5d67e7fa071829304b5c602', 1, 180.00, 'Pending'),
    ('b_0194409dfb0c71b2d3a4152637489903', 't_0194409ce9fa70a1c29304152637e803', 'p_0194409ac5d67e7fa071829304b5c602', 2, 190.00, 'Confirmed')
on conflict do nothing;
