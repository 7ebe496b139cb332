//! The hint for each error that the environment can cause: the next step, in one line that can be followed as written.
//! The error itself names what happened and where.
//!
//! Pure: it uses only the error. An error without a hint is a bug in distilld, or contains the hint itself.

use crate::batch::export::BatchError;
use crate::batch::pair::PairReadError;
use crate::batch::verify::error::VerifyError;
use crate::cli::run::DaemonError;
use crate::cli::wait::WaitError;
use crate::config::{ConfigError, as_typed};
use crate::engine::EngineError;
use crate::platform::background::{THREADS_FIX, ThreadError, is_out_of_threads};
use crate::platform::held_dir::Misplaced;
use crate::platform::root_lock::LockError;
use crate::platform::storage::is_out_of_files;
use crate::query::dead_letters::RetryError;
use crate::query::offline::InquireError;
use crate::recovery::rebuild::{DropReason, DroppedRows, RebuildError};
use crate::store::export::ExportError;
use crate::store::journal::error::JournalError;
use crate::store::ledger::is_ledger;
use crate::store::state::error::StateError;
mod ledger;
mod pair;

use std::error::Error;
use std::io;
use std::io::ErrorKind;

const REPORT: &str =
    "this is a bug in distilld: please report it with the lines above; the export is unchanged";
/// The last resort for an export: it makes the offsets of consumers invalid.
const REBUILD: &str = "as a last resort `distilld rebuild` writes a new export from the sources (`--dry-run` shows its rows)";
/// The remedy for damage that a start may not meet, because it reads little of the state.
const REBUILD_STATE: &str = "`distilld rebuild --state-only` makes a new state of the export; the next start compares it with the sources";
const SYNC: &str = "start distilld again: it compares the disk with its journal and rewrites what is missing; if this \
                    happens again, replace the disk";

/// Returns the hint for an error, if the environment can cause it.
#[must_use]
pub fn remedy(error: &(dyn Error + 'static)) -> Option<String> {
    fn hint<E: Error + 'static>(
        error: &(dyn Error + 'static),
        fix: impl FnOnce(&E) -> String,
    ) -> Option<String> {
        error.downcast_ref::<E>().map(fix)
    }
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if error.is::<ThreadError>() || io.is_some_and(is_out_of_threads) {
            return Some(THREADS_FIX.to_owned());
        }
        cause = error.source();
    }
    hint(error, config)
        .or_else(|| hint(error, daemon))
        .or_else(|| hint(error, engine))
        .or_else(|| hint(error, lock))
        .or_else(|| hint(error, export))
        .or_else(|| hint(error, rebuild))
        .or_else(|| hint(error, batch))
        .or_else(|| hint(error, verify))
        .or_else(|| hint(error, ledger::dataset))
        .or_else(|| hint(error, inquire))
        .or_else(|| hint(error, retry))
        .or_else(|| hint(error, ledger::retract))
        .or_else(|| hint(error, ledger::read))
        .or_else(|| hint(error, pair::named_pair))
        .or_else(|| hint(error, |refusal: &UserError| refusal.fix.clone()))
        .or_else(|| hint(error, |end: &WaitError| end.error.fix.clone()))
        .or_else(|| hint(error, |error: &std::io::Error| disk(error, "it")))
}

/// Returns an error and its hint in one line, for the service manager, with commands that work as typed.
#[must_use]
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    as_typed(&match remedy(error) {
        Some(fix) => format!("{error}; {fix}"),
        None => error.to_string(),
    })
}

/// Returns the hint for an I/O error. `what` names the path, which the error message contains.
fn disk(error: &io::Error, what: &str) -> String {
    if is_out_of_files(error) {
        return "raise the limit of open files: `ulimit -n`, or LimitNOFILE= in a systemd unit"
            .to_owned();
    }
    if let Some(Misplaced { path, .. }) = Misplaced::of(error) {
        return format!(
            "move {} away, and restore the file of distilld in its place; a start without a state or a journal rebuilds \
             both from the sources and the export",
            path.display()
        );
    }
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!(
                "give distilld's user read and write permission for {what}; `distilld check` lists all paths"
            )
        }
        ErrorKind::NotFound => {
            format!(
                "check whether {what} was moved or is not mounted; `distilld check` lists all paths"
            )
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free space on that disk, then run this again; nothing was lost".to_owned()
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            format!(
                "a part of the path of {what} is not a directory: use another path, or move the file away; `distilld check` lists all paths"
            )
        }
        ErrorKind::IsADirectory => {
            format!(
                "{what} is a directory: use another path, or move the directory away; `distilld check` lists all paths"
            )
        }
        // A unit's sandbox has the effect of a read-only mount.
        ErrorKind::ReadOnlyFilesystem => format!(
            "mount the file system of {what} read-write; in a systemd unit, add the directory to ReadWritePaths="
        ),
        ErrorKind::BrokenPipe => "the reader of the output closed it; run this again".to_owned(),
        _ => format!(
            "check the disk of {what} (`dmesg`, `df`, `distilld check`), then run this again"
        ),
    }
}

fn config(error: &ConfigError) -> String {
    match error {
        ConfigError::FileUnreadable { source, .. } => match source.kind() {
            ErrorKind::NotFound => {
                "name an existing file with --config, --instance or DISTILLD_CONFIG, or omit them; `ls /etc/distilld` \
                 lists the instances of this host"
                    .to_owned()
            }
            ErrorKind::InvalidData => "save the file as UTF-8".to_owned(),
            ErrorKind::InvalidInput => "name a regular file".to_owned(),
            ErrorKind::PermissionDenied => {
                "give the user that runs this the right to read the file, or use sudo".to_owned()
            }
            _ => "name a file that can be read; `distilld config` shows which one applies".to_owned(),
        },
        ConfigError::Syntax { .. } => {
            "correct that line; `man distilld.toml` shows how each key is written".to_owned()
        }
        ConfigError::UnknownKey { .. } => {
            "correct or remove the key; `man distilld.toml` lists all of them".to_owned()
        }
        ConfigError::BadValue { key, .. } => {
            format!("change `{key}` there, or remove it to use the default")
        }
        ConfigError::RootMissing => {
            "distilld --root DIR, where DIR contains data/; or set the key `root` in /etc/distilld/distilld.toml"
                .to_owned()
        }
        ConfigError::RootEmpty { .. } => {
            "name a directory there, or remove it to use the next of --root, LH_DISTILL_ROOT and the key `root`"
                .to_owned()
        }
        ConfigError::RootNoDirectory { .. } => "name the directory that contains data/".to_owned(),
        ConfigError::RootOutOfReach { source, .. } => match source.kind() {
            ErrorKind::NotFound => "name the directory that contains data/; mount it if it is not mounted, or create it \
                                    with mkdir if the lake is new"
                .to_owned(),
            _ => disk(source, "it"),
        },
        ConfigError::FileSystemSilent { .. } => "bring its server or its disk back".to_owned(),
    }
}

fn daemon(error: &DaemonError) -> String {
    match error {
        DaemonError::Lock(error) => lock(error),
        // A start finds it marked as damaged.
        DaemonError::Engine(EngineError::State(StateError::Damaged(_))) => {
            "start `distilld run`: it rebuilds the state from the sources and the export".to_owned()
        }
        DaemonError::Engine(error) => engine(error),
        DaemonError::Root { source, .. } => disk(source, "the root"),
        DaemonError::Start(source) => match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::NotFound => disk(source, "the root"),
            _ => "raise the limit that the kernel names (`ulimit -a`, `sysctl fs.inotify`), then start again"
                .to_owned(),
        },
        DaemonError::Incomplete(_) => "give the user that runs distilld the right to read them, or mount their file system; `distilld check` names the rights that are missing".to_owned(),
        DaemonError::Panicked => {
            "start distilld again, it recovers; please report the lines above".to_owned()
        }
    }
}

/// The remedy for a ledger that does not fit its export.
const LEDGER: &str = "restore the export and its ledger from the same copy, then start again; or `distilld rebuild --state-only`, which \
     keeps the rows and begins a new ledger with the orders of the old one and the rows that it has as out";

fn engine(error: &EngineError) -> String {
    match error {
        EngineError::State(error) => state(error),
        EngineError::Journal(error) => journal(error),
        EngineError::Export(error) => export(error),
        EngineError::Forbidden(_)
        | EngineError::AccountingMismatch(_)
        | EngineError::LineTotals(_) => REPORT.to_owned(),
        EngineError::Ledger { .. } => LEDGER.to_owned(),
        EngineError::Tainted { .. } => format!("restore an export without that row; {REBUILD}"),
        EngineError::StateDir { source, .. } => disk(source, "the state directory"),
    }
}

fn state(error: &StateError) -> String {
    match error {
        StateError::Io(error) => disk(error, "the state"),
        StateError::Sync(_) => SYNC.to_owned(),
        StateError::Damaged(_) => REBUILD_STATE.to_owned(),
    }
}

fn journal(error: &JournalError) -> String {
    match error {
        JournalError::Io(error) => disk(error, "the journal"),
        JournalError::Sync(_) => SYNC.to_owned(),
        JournalError::Damaged(_) => {
            "start `distilld run`: it rebuilds the state from the sources and the export".to_owned()
        }
    }
}

fn lock(error: &LockError) -> String {
    match error {
        LockError::Held(holder) => format!(
            "stop process {} first (`systemctl stop distilld`), or use another root",
            holder.pid
        ),
        LockError::HeldByUnknown(_) => {
            "stop the other distilld first, or use another root".to_owned()
        }
        LockError::NotOwnFile { path, .. } => {
            format!(
                "move {} away; the next start of the daemon creates a lock",
                path.display()
            )
        }
        LockError::Io { source, .. } => disk(source, "the lock's directory"),
    }
}

fn export(error: &ExportError) -> String {
    let restore = |what, adopted| {
        format!("restore {what}, or run `distilld rebuild --state-only` {adopted}; {REBUILD}")
    };
    match error {
        ExportError::Io { source, .. } => disk(source, "the export"),
        ExportError::Sync { .. } => SYNC.to_owned(),
        ExportError::Missing { path, .. } | ExportError::Short { path, .. } if is_ledger(path) => {
            ledger::LOST.to_owned()
        }
        ExportError::Changed { path, .. } if is_ledger(path) => LEDGER.to_owned(),
        ExportError::Missing { .. } => {
            format!("mount its disk if it is not mounted, or restore the export; {REBUILD}")
        }
        ExportError::Short { .. } => restore(
            "the lost bytes",
            "to go on with the rows that are left, and to append those that are missing",
        ),
        ExportError::NotAFile { .. } => {
            "move it away and restore the export in its place".to_owned()
        }
        ExportError::Changed { .. } => restore(
            "the file that distilld wrote",
            "to go on with the rows of the file as it is",
        ),
    }
}

/// The remedy for an empty directory: without a state a rebuild does not know whether its day-files are deleted.
const EMPTY_DIRECTORY: &str = "mount the file system of the empty directory; or, if its day-files were deleted for good, remove it with \
     `rmdir`; then run this again; `distilld rebuild --state-only` renews the state and keeps the rows";

fn rebuild(error: &RebuildError) -> String {
    match error {
        RebuildError::Engine(error) => engine(error),
        RebuildError::Sources { source, .. } => disk(source, "the sources"),
        RebuildError::UnreadBytes { .. } => {
            "make it readable, the log has the error; then run `distilld rebuild` again".to_owned()
        }
        RebuildError::WouldDrop(rebuilt, DropReason::Unreadable) => {
            if rebuilt.dropped.iter().any(DroppedRows::is_of_empty_directory) {
                return EMPTY_DIRECTORY.to_owned();
            }
            "make them readable or mount their file system (`distilld check` names the rights that are missing), then run \
             this again; `distilld rebuild --state-only` renews the state and keeps the rows"
                .to_owned()
        }
        RebuildError::WouldDrop(..) => {
            "restore the day-files, then run this again; `distilld rebuild --state-only` renews the state and keeps the \
             rows; `distilld rebuild --drop-missing` drops them"
                .to_owned()
        }
        RebuildError::NothingToAdopt(_) => {
            format!("mount its disk if it is not mounted, or restore the export; {REBUILD}")
        }
        RebuildError::Rewritten { .. } => {
            "run `distilld rebuild` again while no program rewrites day-files".to_owned()
        }
        RebuildError::Replaced(_) => {
            "find the process that writes in that directory, then run `distilld rebuild` again".to_owned()
        }
        RebuildError::Stopped => "run `distilld rebuild` again and let it finish".to_owned(),
    }
}

fn batch(error: &BatchError) -> String {
    match error {
        BatchError::Walk { source, .. } => disk(source, "the sources"),
        BatchError::Pair(fault) => pair(fault),
        BatchError::Write { source, .. } => disk(source, "the output"),
        BatchError::WouldDrop { .. } => {
            "restore the day-files or make them readable (`distilld check` names the rights that are missing), use \
             `--output FILE` to write elsewhere, or move the export away first"
                .to_owned()
        }
        BatchError::Forbidden(_) => REPORT.to_owned(),
    }
}

fn pair(fault: &PairReadError) -> String {
    disk(&fault.source, "that day-file")
}

fn verify(error: &VerifyError) -> String {
    match error {
        VerifyError::Walk { source, .. } | VerifyError::Examine { source, .. } => {
            disk(source, "the sources")
        }
        VerifyError::Pair(fault) => pair(fault),
        VerifyError::Export { source, .. } => disk(source, "the export"),
        VerifyError::Ledger { source, .. } => disk(source, "the ledger"),
        VerifyError::Replaced { .. } => "run `distilld verify` again".to_owned(),
    }
}

fn retry(error: &RetryError) -> String {
    match error {
        RetryError::Inquire(error) => change(error),
        RetryError::Engine(error) => engine(error),
        RetryError::Refused(why) => why.fix().to_owned(),
    }
}

/// As [`inquire`], for a command that changes something.
fn change(error: &InquireError) -> String {
    match error {
        InquireError::Denied(denied) | InquireError::DeniedFiles(denied) => {
            denied.fix_of_a_change()
        }
        error => inquire(error),
    }
}

fn inquire(error: &InquireError) -> String {
    match error {
        InquireError::Denied(denied) | InquireError::DeniedFiles(denied) => denied.fix(),
        InquireError::Root { source, .. } => disk(source, "the root"),
        InquireError::NoState(_) => {
            "start `distilld run`, or use the daemon's --state-dir".to_owned()
        }
        InquireError::Lock(error) => lock(error),
        InquireError::State(error) => state(error),
        InquireError::Journal(error) => journal(error),
        InquireError::NoSnapshotYet { .. } => "try again in a moment".to_owned(),
        InquireError::Unresponsive { pid, .. } => format!(
            "try again in a moment; `ps -o stat,wchan -p {pid}` shows whether it is stopped (T: `kill -CONT {pid}`) or waits \
             for a disk (D); after a stop of the daemon this command reads its files"
        ),
        InquireError::Rejected { .. } => {
            "follow the daemon's response, then repeat the command".to_owned()
        }
        InquireError::IncompatibleResponse { .. } => {
            "restart the daemon if it was upgraded since it started".to_owned()
        }
        InquireError::Snapshot { .. } => "restart the daemon, which writes it again".to_owned(),
    }
}

/// An error of a command that the user can resolve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct UserError {
    /// The reason and its location.
    pub what: String,
    /// The command or change that resolves it.
    pub fix: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_has_a_hint_at_every_depth() {
        let denied = || io::Error::from(ErrorKind::PermissionDenied);
        let errors: [Box<dyn Error>; 4] = [
            Box::new(DaemonError::Engine(EngineError::State(StateError::Io(
                denied(),
            )))),
            Box::new(RebuildError::Engine(EngineError::Journal(
                JournalError::Io(denied()),
            ))),
            Box::new(InquireError::Lock(LockError::Io {
                path: "lock".into(),
                source: denied(),
            })),
            Box::new(denied()),
        ];
        for error in errors {
            let fix = remedy(&*error).unwrap_or_default();
            assert!(fix.contains("read and write permission"), "{error}: {fix}");
        }
    }

    #[test]
    fn a_full_disk_needs_space_and_not_permissions() {
        let full = InquireError::State(StateError::Io(ErrorKind::StorageFull.into()));
        assert!(remedy(&full).is_some_and(|fix| fix.starts_with("free space")));
    }

    #[test]
    fn too_many_open_files_does_not_blame_the_disk() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let fix = remedy(&EngineError::State(StateError::Io(error))).unwrap_or_default();
        assert!(fix.contains("LimitNOFILE="), "{fix}");
    }

    #[test]
    fn an_unknown_error_has_no_hint() {
        assert_eq!(remedy(&std::fmt::Error), None);
    }
}
