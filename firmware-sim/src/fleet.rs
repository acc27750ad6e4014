//! The fleet: all devices of a run in one thread, a task for each. In comes a stage, out come the
//! devices' ledgers when the last one is done.

mod connection;
pub mod pace;
mod powered;
pub mod stage;
mod timer;
pub mod unit;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::ledger::DeviceLedger;
use connection::Shared;
use stage::Stage;
use unit::Unit;

pub use powered::Parted;

/// Plays the stage's scenario with `devices` devices against `address`, to the end or until the stage
/// is stopped. Gives a ledger for each device, by its number.
///
/// To be run inside a [`tokio::task::LocalSet`].
///
/// # Errors
/// When the system gives no timer.
pub async fn play(
    stage: &Rc<Stage>,
    clock: Clock,
    address: SocketAddr,
    devices: u32,
) -> io::Result<Vec<DeviceLedger>> {
    let shared = Rc::new(Shared::new(Rc::clone(stage), clock, address)?);
    let mut tasks = JoinSet::new();
    for index in 0..devices {
        let unit = Box::new(Unit::new(index, stage));
        let task = connection::live(unit, index, Rc::clone(&shared));
        tasks.spawn_local(async move { (index, task.await) });
    }
    let mut ledgers: Vec<DeviceLedger> = Vec::new();
    ledgers.resize_with(devices as usize, DeviceLedger::default);
    while let Some(ended) = tasks.join_next().await {
        // A device that panicked is a defect of the simulator; its ledger stays empty, and the panic
        // is on the terminal.
        if let Ok((index, ledger)) = ended
            && let Some(place) = ledgers.get_mut(index as usize)
        {
            *place = ledger;
        }
    }
    Ok(ledgers)
}
