insert into notifications (id, user_id, user_type, device_token_id, title, body, data, status, sent_at)
values
    ('n_019440a0314274e506d7485960718c01', 'p_0194409ac5d67e7fa071829304b5c601', 'passenger', 'dt_0194409f1f3073d4f5c6374859607b02',
     'Booking confirmed', 'Cairo to Alexandria, seats 1 and 2',
     '{"booking_id": "b_0194409dfb0c71b2d3a4152637489901"}', 'Sent', '2025-01-08 09:15:00+00'),
    ('n_019440a0314274e506d7485960718c02', 'd_01944098a1b27c3d8e4f5a6b7c8d9e01', 'driver', 'dt_0194409f1f3073d4f5c6374859607b01',
     'New booking', 'One more passenger for Cairo to Alexandria',
     '{"booking_id": "b_0194409dfb0c71b2d3a4152637489902"}', 'Pending', null)
on conflict do nothing;
