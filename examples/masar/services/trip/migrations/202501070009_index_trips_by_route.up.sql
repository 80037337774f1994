-- The search: from where, to where, in the order of departure.
create index ix_trips_from_city_to_city_departure_time_utc
    on trips (from_city, to_city, departure_time_utc, id) where status = 'Scheduled';
