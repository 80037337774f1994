//! Short runs of what is a proof more than a measurement.

mod crash;
