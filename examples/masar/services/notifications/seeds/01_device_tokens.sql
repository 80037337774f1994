-- Users as the user service seeds them.
insert into device_tokens (id, user_id, user_type, device_token, platform, app_version)
values
    ('dt_0194409f1f3073d4f5c6374859607b01', 'd_01944098a1b27c3d8e4f5a6b7c8d9e01', 'driver', 'example-device-token-1', 'android', '1.4.0'),
    ('dt_0194409f1f3073d4f5c6374859607b02', 'p_0194409ac5d67e7fa071829304b5c601', 'passenger', 'example-device-token-2', 'ios', '1.4.1'),
    ('dt_0194409f1f3073d4f5c6374859607b03', 'p_0194409ac5d67e7fa071829304b5c602', 'passenger', 'example-device-token-3', 'android', '1.3.9')
on conflict do nothing;
