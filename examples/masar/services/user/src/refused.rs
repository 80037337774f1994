//! What the database refuses because of the request, in the request's words.

use pgfleet::http::Problem;

/// Names the field for which a constraint refuses a row; every other error stays what it is.
pub(crate) fn refused(error: impl Into<pgfleet::Error>) -> Problem {
    let error = error.into();
    match error.constraint() {
        Some("ix_drivers_phone_number" | "ix_passengers_phone_number") => {
            Problem::new(409, "the phone number is taken").with("field", "phoneNumber")
        }
        Some("uq_vehicles_plate_number") => Problem::new(409, "the plate number is taken").with("field", "plateNumber"),
        Some("ck_vehicles_seat_count") => Problem::new(400, "a vehicle has 1 to 60 seats").with("field", "seatCount"),
        _ => error.into(),
    }
}
