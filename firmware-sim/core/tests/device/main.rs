//! What the device's firmware promises, one file for each promise.

mod far_end;
mod payload;
mod promises;
mod week;
