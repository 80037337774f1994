CREATE TABLE seats (trip bigint REFERENCES trips, number int, PRIMARY KEY (trip, number));
