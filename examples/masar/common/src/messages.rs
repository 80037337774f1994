//! The messages that the services send each other.

use pgfleet::messages::MessageBody;
use serde::{Deserialize, Serialize};

use crate::ids::{BookingId, PassengerId, TripId};

/// A booking was confirmed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BookingConfirmed {
    /// The booking.
    pub booking_id: BookingId,
    /// Its trip.
    pub trip_id: TripId,
    /// Who booked.
    pub passenger_id: PassengerId,
    /// How many seats.
    pub seats: i32,
    /// Where the trip begins.
    pub from: String,
    /// Where it ends.
    pub to: String,
}

impl MessageBody for BookingConfirmed {
    const KIND: &'static str = "BookingConfirmed";
    const TOPIC: &'static str = "trip.bookings";

    /// A passenger is told in the order in which he booked.
    fn key(&self) -> Option<String> {
        Some(self.passenger_id.to_string())
    }
}
