//! `distilld-publish`: commits the effective rows of one export to a Delta table that many hosts share.
//!
//! 1. **One fact.** At each version of the table the rows of a host are the effective rows of its export up to a point:
//!    a length of the export and a length of the ledger. The numbers of this point are committed with the rows, as
//!    transactions of the table. The publisher has no state of its own.
//! 2. **Once.** A commit begins at the newest version of the table, continues at its point, and succeeds only as the
//!    next version. Where another writer was first, everything is read again. So a twin of a publisher, a repeated
//!    start and an answer that was lost do no harm.
//! 3. **Closed.** A row that is retracted is not added, and one that is retracted later is taken out by a commit that
//!    writes its file again: a reader of the table needs no ledger.
//! 4. **The same export.** The identity of the export and a digest of the last lines before the point are committed
//!    too. An export that was rebuilt, restored or belongs to another host of the same name is refused.

mod args;
mod checkpoint;
pub mod columns;
pub mod commands;
pub mod error;
pub mod help;
mod metrics;
mod numbers;
pub mod publisher;
pub mod replace;
mod run;
mod serve;
pub mod settings;
pub mod status;
pub mod table;
pub mod verify;
