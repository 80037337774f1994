//! How many seats.

use serde::{Deserialize, Serialize};

/// A number of seats: 1 to 60, as in the largest vehicle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Seats(i32);

impl Seats {
    /// Returns the number as the column has it.
    pub(crate) fn get(self) -> i32 {
        self.0
    }
}

impl TryFrom<i64> for Seats {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        match i32::try_from(number) {
            Ok(number) if (1..=60).contains(&number) => Ok(Self(number)),
            _ => Err(format!("{number} seats: 1 to 60 can be had")),
        }
    }
}
