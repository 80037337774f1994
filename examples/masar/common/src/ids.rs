//! The ids that the services hand each other: a driver's is no passenger's, and the compiler knows.

use pgfleet::values::{Entity, Id};

macro_rules! ids {
    ($($id:ident: $entity:ident $prefix:literal, $what:literal)*) => {$(
        #[doc = concat!("What `", $prefix, "…` is the id of.")]
        #[derive(Debug)]
        pub enum $entity {}

        impl Entity for $entity {
            const PREFIX: &'static str = $prefix;
        }

        #[doc = concat!("The id of ", $what, ".")]
        pub type $id = Id<$entity>;
    )*};
}

ids! {
    DriverId: Driver "d_", "a driver"
    VehicleId: Vehicle "v_", "a vehicle"
    PassengerId: Passenger "p_", "a passenger"
    TripId: Trip "t_", "a trip"
    BookingId: Booking "b_", "a booking"
    SeatId: Seat "s_", "a seat that was assigned"
    DeviceId: Device "dt_", "a device of a user"
    NotificationId: Notification "n_", "a notification"
}
