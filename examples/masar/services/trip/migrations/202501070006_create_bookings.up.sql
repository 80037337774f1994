create table bookings (
    id varchar(50) not null,
    trip_id varchar(450) not null,
    passenger_id varchar(450) not null,
    seat_count integer not null,
    total_price numeric(10, 2) not null,
    status varchar(50) not null default 'Pending',
    created_at timestamptz not null default current_timestamp,
    updated_at timestamptz not null default current_timestamp,
    is_deleted boolean not null default false,
    deleted_at timestamptz,
    constraint pk_bookings primary key (id),
    constraint fk_bookings_trips foreign key (trip_id) references trips (id) on delete cascade,
    constraint ck_bookings_status check (status in ('Pending', 'Confirmed', 'Cancelled')),
    constraint ck_bookings_seat_count check (seat_count > 0)
);

comment on column bookings.passenger_id is 'id of a passenger in the user service';

create index ix_bookings_trip_id on bookings (trip_id);

create index ix_bookings_passenger_id on bookings (passenger_id);
