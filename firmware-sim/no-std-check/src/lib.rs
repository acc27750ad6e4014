//! A stand-in for a firmware image: the device core and a panic handler, nothing else. That it
//! links at all says that `std` has not slipped in.

#![no_std]
#![forbid(unsafe_code)]

use tidegate_device::payload::{Form, PAYLOAD_MAX, write};
use tidegate_device::{Device, Step, Tick, Value};

/// One turn of a main loop: all of the core is linked, not merely named.
pub fn turn(device: &mut Device, now: Tick) -> Option<Tick> {
    while let Some(due) = device.due(now) {
        device.sample(due, Value(0));
    }
    device.report(now);
    match device.poll(now) {
        Step::Wait(until) => Some(until),
        Step::Publish(outgoing) => {
            let mut buffer = [0; PAYLOAD_MAX];
            let _ = write(&outgoing.message, Form::Json, &mut buffer);
            None
        }
        Step::Connect | Step::Ping | Step::Disconnect => None,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
