drop table drivers;
