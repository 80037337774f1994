alter table announcements
    add column severity varchar(8) not null default 'info',
    add constraint ck_announcements_severity check (severity in ('info', 'warning', 'critical'));
