//! The trip service on databases of tests.

mod bookings;
mod support;
mod trips;
mod walk;
