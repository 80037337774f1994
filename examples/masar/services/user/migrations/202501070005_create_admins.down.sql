drop table admins;
