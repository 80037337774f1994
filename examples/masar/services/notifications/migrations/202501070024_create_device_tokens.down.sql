drop table device_tokens;
