//! Answers to queries: `status`, `explain`, `plan` and `dead-letters`, from the daemon or from its files.

pub mod changed_rows;
pub mod control;
pub(crate) mod control_socket;
pub mod dead_letters;
pub mod engine_setup;
pub mod explain;
pub mod health;
pub mod instances;
pub mod ledger;
pub mod line_numbers;
pub mod offline;
pub mod plan;
pub mod retract;
pub mod status;
pub mod wait;
