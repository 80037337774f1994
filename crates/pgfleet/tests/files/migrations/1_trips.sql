CREATE TABLE trips (id bigint PRIMARY KEY, driver text NOT NULL);
