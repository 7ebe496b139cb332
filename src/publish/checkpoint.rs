//! Checkpoints of the table, each written by a thread that is given up when it takes too long: a reader is faster with a
//! checkpoint, and correct without one.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::platform::background::spawn;
use crate::publish::settings::Settings;
use crate::publish::table::{Location, Table, TableError};

/// The time that a checkpoint may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The checkpoints that this process writes.
#[derive(Debug)]
pub struct Checkpoints {
    table: Location,
    every: u64,
    /// One did not end: its thread still holds what it held.
    is_stuck: bool,
}

impl Checkpoints {
    /// Writes checkpoints as often as is configured.
    #[must_use]
    pub fn new(settings: &Settings) -> Checkpoints {
        Checkpoints {
            table: settings.table.clone(),
            every: settings.checkpoint_every,
            is_stuck: false,
        }
    }

    /// Writes a checkpoint if the version that this process committed is due for one, so that of several writers one
    /// does. A failure is logged.
    pub fn after(&mut self, version: u64) {
        if self.every == 0 || version == 0 || !version.is_multiple_of(self.every) || self.is_stuck {
            return;
        }
        let (sender, receiver) = channel();
        let table = self.table.clone();
        let started = spawn("checkpoint", move || {
            // The send fails if the patience has ended.
            let _ = sender.send(write(table));
        });
        let failure = match started.map(|_thread| receiver.recv_timeout(PATIENCE)) {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(RecvTimeoutError::Timeout)) => {
                self.is_stuck = true;
                format!("not written within {} s", PATIENCE.as_secs())
            }
            Ok(Err(RecvTimeoutError::Disconnected)) => "its thread ended early".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            version,
            "no checkpoint of version {version} of the table: {failure}"
        );
    }
}

fn write(table: Location) -> Result<(), TableError> {
    let table = Table::open(table)?;
    match table.newest()? {
        Some(version) => version.checkpoint(),
        None => Ok(()),
    }
}
