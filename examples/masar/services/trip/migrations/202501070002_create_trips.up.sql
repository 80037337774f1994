create table trips (
    id varchar(450) not null,
    from_city varchar(450) not null,
    to_city varchar(450) not null,
    departure_time_utc timestamptz not null,
    arrival_time_utc timestamptz,
    description varchar(1000),
    price numeric(10, 2) not null,
    status varchar(50) not null default 'Scheduled',
    available_seats integer not null,
    total_seats integer not null,
    vehicle_id varchar(450) not null,
    driver_id varchar(450) not null,
    created_at_utc timestamptz not null default current_timestamp,
    updated_at_utc timestamptz not null default current_timestamp,
    constraint pk_trips primary key (id),
    constraint ck_trips_status check (status in ('Scheduled', 'Started', 'Completed', 'Cancelled')),
    constraint ck_trips_available_seats check (available_seats between 0 and total_seats)
);

-- Both live in the user service's database, so the service keeps them right, not a foreign key.
comment on column trips.vehicle_id is 'id of a vehicle in the user service';
comment on column trips.driver_id is 'id of a driver in the user service';

create index ix_trips_vehicle_id on trips (vehicle_id);

create index ix_trips_driver_id on trips (driver_id);
