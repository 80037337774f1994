drop table seat_assignments;
