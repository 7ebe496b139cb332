//! The hints for errors of the retraction ledger and of the commands that read or change it.

use std::io::ErrorKind;

use crate::cli::hints::{LEDGER, change, disk, engine};
use crate::dataset::error::DatasetError;
use crate::engine::OrderError;
use crate::query::ledger::LedgerReadError;
use crate::query::retract::RetractError;

/// The remedy for a ledger that is missing or was cut, while the export is there.
pub(super) const LOST: &str = "mount its disk if it is not mounted, or restore the ledger from the copy that the export is from; or run \
     `distilld rebuild --state-only`, which keeps the rows and begins a new ledger with the orders and the rows that are out by \
     what the state has";

pub(super) fn dataset(error: &DatasetError) -> String {
    match error {
        DatasetError::Io { source, .. } => match source.kind() {
            ErrorKind::PermissionDenied => {
                "run it as root, or as a user who may read the export and sft_retractions.jsonl next to it; their group may: \
                 `ls -l` shows which it is"
                    .to_owned()
            }
            _ => disk(source, "that file"),
        },
        DatasetError::Output(source) => disk(source, "the output"),
        DatasetError::NoExport(_) => {
            "name the root with --root, or the file with --export; mount its disk if it is not mounted".to_owned()
        }
        DatasetError::NoLedger(_) | DatasetError::EmptyLedger(_) => {
            "start `distilld run` once, which writes it; a copy of an export needs the copy of its ledger in the same \
             directory"
                .to_owned()
        }
        DatasetError::Ledger { .. } | DatasetError::Foreign { .. } => LEDGER.to_owned(),
        DatasetError::Torn { .. } => {
            format!("start `distilld run`, which completes it; otherwise {LEDGER}")
        }
        DatasetError::Short { .. } => {
            "start `distilld run`: after a crash it appends the rows that are missing; otherwise restore the export; \
             for a copy of a growing export use the two lengths that `distilld cite --json` prints (`head -c`)"
                .to_owned()
        }
        DatasetError::Replaced { .. } | DatasetError::Cut { .. } => {
            "begin again with the first row: offsets and versions of the old export are void".to_owned()
        }
        DatasetError::Rebuilt { .. } => {
            "read the new export from its first row; the old one is kept with the suffix .before-rebuild until it is \
             removed"
                .to_owned()
        }
        DatasetError::ShorterThanVersion { .. } | DatasetError::Changed { .. } => {
            "restore both files from a copy that has this version; `distilld cite` names the version that is there"
                .to_owned()
        }
        DatasetError::NoRowStart { .. } => {
            "use an offset of `distilld rows --offsets`, or a version of `distilld cite`".to_owned()
        }
        DatasetError::AfterEnd { .. } => {
            "check whether a rebuild replaced the export; a version of `distilld cite` instead of an offset finds that"
                .to_owned()
        }
        DatasetError::BeforeLedger { .. } => {
            "use a later time or length; `rebuild` and an upgrade begin a new ledger".to_owned()
        }
        DatasetError::ClockWentBack { .. } => {
            "use a version of `distilld cite`, or a length of the export, instead of a time".to_owned()
        }
        DatasetError::NoRow { .. } => {
            "omit --key and --offsets, or remove that line with `distilld rebuild`".to_owned()
        }
        DatasetError::Order { .. } => "give the earlier version first".to_owned(),
    }
}

pub(super) fn retract(error: &RetractError) -> String {
    match error {
        RetractError::Inquire(error) => change(error),
        RetractError::Engine(error) | RetractError::Order(OrderError::Engine(error)) => {
            engine(error)
        }
        RetractError::Order(OrderError::NoReason) => "add --reason TEXT".to_owned(),
        RetractError::Order(OrderError::NoDayFile(_)) => {
            "name the path of the day-file relative to data/scored-runs".to_owned()
        }
        RetractError::Ledger(error) => read(error),
    }
}

pub(super) fn read(error: &LedgerReadError) -> String {
    match error.source.kind() {
        ErrorKind::NotFound => "start `distilld run`, which creates the ledger".to_owned(),
        ErrorKind::InvalidData => {
            "restore the ledger from a copy, or run `distilld rebuild --state-only`".to_owned()
        }
        _ => disk(&error.source, "the ledger"),
    }
}
