create table seat_assignments (
    id varchar(50) not null,
    trip_id varchar(450) not null,
    booking_id varchar(50) not null,
    seat_number integer not null,
    created_at timestamptz not null default current_timestamp,
    updated_at timestamptz not null default current_timestamp,
    is_deleted boolean not null default false,
    deleted_at timestamptz,
    constraint pk_seat_assignments primary key (id),
    constraint fk_seat_assignments_trips foreign key (trip_id) references trips (id) on delete cascade,
    constraint fk_seat_assignments_bookings foreign key (booking_id) references bookings (id) on delete cascade,
    constraint ck_seat_assignments_seat_number check (seat_number > 0)
);

-- One passenger a seat. Partial, so that a seat given up can be taken again.
create unique index uq_seat_assignments_trip_seat on seat_assignments (trip_id, seat_number) where not is_deleted;

-- Not partial: deleting a trip cascades over deleted assignments too.
create index ix_seat_assignments_trip_id on seat_assignments (trip_id);

create index ix_seat_assignments_booking_id on seat_assignments (booking_id);
