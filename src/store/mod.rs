//! The durable files of a daemon: the export, the journal that commits each batch, and the state that checkpoints it.

pub mod export;
pub(crate) mod files;
pub mod journal;
pub mod ledger;
pub mod recent;
pub(crate) mod replay;
pub mod row_buffer;
pub mod snapshot;
pub mod state;
pub mod written;
