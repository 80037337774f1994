//! A booking was confirmed: its passenger is told.

use masar_common::ids::NotificationId;
use masar_common::messages::BookingConfirmed;
use pgfleet::Tx;
use pgfleet::messages::{Failure, Handle, Message};

/// Writes the notification for the passenger of a booking.
pub(crate) struct TellPassenger;

impl Handle<BookingConfirmed> for TellPassenger {
    async fn handle(&self, tx: &mut Tx, booked: BookingConfirmed, _: &Message) -> Result<(), Failure> {
        // Committed together with the note that the message was handled, so a booking is told once. What sends it to the
        // device finds it as `Pending`; somebody without a device reads it in the list.
        let sql = "INSERT INTO notifications (id, user_id, user_type, device_token_id, title, body, data) \
                   VALUES ($1, $2::text, 'passenger', \
                           (SELECT id FROM device_tokens WHERE user_id = $2::text AND is_active ORDER BY updated_at_utc DESC LIMIT 1), \
                           'Booking confirmed', $3, $4::text::jsonb)";
        let seats = match booked.seats {
            1 => "1 seat".to_owned(),
            seats => format!("{seats} seats"),
        };
        let body = format!("{} to {}, {seats}", booked.from, booked.to);
        let data = serde_json::json!({ "booking_id": booked.booking_id, "trip_id": booked.trip_id }).to_string();
        let passenger = booked.passenger_id.to_string();
        tx.execute(sql, &[&NotificationId::generate(), &passenger, &body, &data]).await?;
        Ok(())
    }
}
