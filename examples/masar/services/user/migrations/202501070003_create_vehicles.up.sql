create table vehicles (
    id varchar(50) not null,
    driver_id varchar(50) not null,
    plate_number varchar(20) not null,
    make varchar(100) not null,
    model varchar(100) not null,
    color varchar(50),
    model_year integer,
    seat_count integer not null,
    registration_document_url text,
    is_active boolean not null default true,
    created_at timestamptz not null default current_timestamp,
    updated_at timestamptz not null default current_timestamp,
    is_deleted boolean not null default false,
    deleted_at timestamptz,
    constraint pk_vehicles primary key (id),
    constraint fk_vehicles_drivers foreign key (driver_id) references drivers (id) on delete cascade,
    constraint uq_vehicles_plate_number unique (plate_number),
    constraint ck_vehicles_seat_count check (seat_count between 1 and 60)
);

create index ix_vehicles_driver_id on vehicles (driver_id);

create index ix_vehicles_is_deleted_is_active on vehicles (is_deleted, is_active);
