drop table passengers;
