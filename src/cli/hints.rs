//! Owns what a person is told to do about each error that the world can cause. What happened, and where, the errors
//! say themselves; here is the next step, in one line that can be followed as it stands.
//!
//! Pure: it looks at nothing but the error. An error without a remedy is a bug of ours, or a sentence that holds one.

use crate::batch::export::BatchError;
use crate::batch::pair::PairReadError;
use crate::batch::verify::error::VerifyError;
use crate::cli::run::DaemonError;
use crate::config::ConfigError;
use crate::engine::EngineError;
use crate::platform::root_lock::LockError;
use crate::platform::storage::is_out_of_files;
use crate::query::dead_letters::RetryError;
use crate::query::offline::InquireError;
use crate::recovery::rebuild::RebuildError;
use crate::store::export::ExportError;
use crate::store::journal::error::JournalError;
use crate::store::state::error::StateError;
use std::error::Error;
use std::io;
use std::io::ErrorKind;

const REPORT: &str =
    "this is a bug in distilld: please report it with the lines above; the export was not touched";
const SYNC: &str = "start distilld again: it finds out what is on the disk and writes again what is missing; if this \
                    comes back, replace the disk";

/// What to do about an error, if the world can cause it.
#[must_use]
pub fn remedy(error: &(dyn Error + 'static)) -> Option<String> {
    fn of<E: Error + 'static>(
        error: &(dyn Error + 'static),
        fix: impl FnOnce(&E) -> String,
    ) -> Option<String> {
        error.downcast_ref::<E>().map(fix)
    }
    of(error, config)
        .or_else(|| of(error, daemon))
        .or_else(|| of(error, engine))
        .or_else(|| of(error, lock))
        .or_else(|| of(error, export))
        .or_else(|| of(error, rebuild))
        .or_else(|| of(error, batch))
        .or_else(|| of(error, verify))
        .or_else(|| of(error, inquire))
        .or_else(|| of(error, retry))
        .or_else(|| of(error, |refusal: &UserError| refusal.fix.clone()))
        .or_else(|| of(error, |error: &std::io::Error| disk(error, "it")))
}

/// An error and what to do about it where there is one line for both: the service manager's.
#[must_use]
pub fn in_a_line(error: &(dyn Error + 'static)) -> String {
    match remedy(error) {
        Some(fix) => format!("{error}; {fix}"),
        None => error.to_string(),
    }
}

/// What the file system refused, and what then helps. `what` is a name that stands in the error already.
fn disk(error: &io::Error, what: &str) -> String {
    if is_out_of_files(error) {
        return "raise the limit of open files: `ulimit -n`, or LimitNOFILE= in a unit of systemd"
            .to_owned();
    }
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!(
                "give the user that distilld runs as the right to read and write {what}; `distilld check` looks"
            )
        }
        ErrorKind::NotFound => {
            format!(
                "look whether {what} was moved or is not mounted; `distilld check` looks at all paths"
            )
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on that disk, then run this again; nothing was lost".to_owned()
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            format!(
                "a part of the path of {what} is no directory: name another, or move what stands there; `distilld check` looks"
            )
        }
        ErrorKind::IsADirectory => {
            format!(
                "a directory stands where {what} should: name another, or move it; `distilld check` looks"
            )
        }
        // A unit's sandbox looks like a file system that is mounted read-only.
        ErrorKind::ReadOnlyFilesystem => format!(
            "mount the file system of {what} for writing; in a unit of systemd, name the directory in ReadWritePaths="
        ),
        ErrorKind::BrokenPipe => "whoever read the output went away; run this again".to_owned(),
        _ => format!(
            "look at the disk of {what} (`dmesg`, `df`, `distilld check`), then run this again"
        ),
    }
}

fn config(error: &ConfigError) -> String {
    match error {
        ConfigError::FileUnreadable { source, .. } => match source.kind() {
            ErrorKind::NotFound => {
                "name a file that is there with --config, or leave --config out".to_owned()
            }
            ErrorKind::InvalidData => "save the file as UTF-8".to_owned(),
            ErrorKind::InvalidInput => "name a regular file with --config".to_owned(),
            _ => disk(source, "the file"),
        },
        ConfigError::Syntax { .. } => {
            "correct that line; `man distilld.toml` shows how each key is written".to_owned()
        }
        ConfigError::UnknownKey { .. } => {
            "correct or remove the key; `man distilld.toml` lists all of them".to_owned()
        }
        ConfigError::BadValue { key, .. } => {
            format!("change `{key}` there, or remove it to have the default")
        }
        ConfigError::RootMissing => "distilld --root DIR, where DIR holds data/".to_owned(),
        ConfigError::RootEmpty { .. } => {
            "name a directory there, or drop it to use the next of --root, LH_DISTILL_ROOT and the key `root`"
                .to_owned()
        }
        ConfigError::RootNoDirectory { .. } => "name the directory that holds data/".to_owned(),
        ConfigError::RootOutOfReach { source, .. } => match source.kind() {
            ErrorKind::NotFound => "name the directory that holds data/; mount it if it is not mounted yet, make it \
                                    with mkdir if the lake is new"
                .to_owned(),
            _ => disk(source, "it"),
        },
    }
}

fn daemon(error: &DaemonError) -> String {
    match error {
        DaemonError::Lock(error) => lock(error),
        DaemonError::Engine(error) => engine(error),
        DaemonError::Root { source, .. } => disk(source, "the root"),
        DaemonError::Start(source) => match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::NotFound => disk(source, "the root"),
            _ => "raise the limit that the kernel names (`ulimit -a`, `sysctl fs.inotify`), then start again"
                .to_owned(),
        },
        DaemonError::Panicked => {
            "start distilld again, which recovers; please report the lines above".to_owned()
        }
    }
}

fn engine(error: &EngineError) -> String {
    match error {
        EngineError::State(error) => state(error),
        EngineError::Journal(error) => journal(error),
        EngineError::Export(error) => export(error),
        EngineError::Forbidden(_) | EngineError::AccountingMismatch(_) | EngineError::LineTotals(_) => {
            REPORT.to_owned()
        }
        EngineError::Tainted { .. } => {
            "`distilld rebuild` writes a fresh export from the sources; or put back an export without that row"
                .to_owned()
        }
        EngineError::StateDir { source, .. } => disk(source, "the state directory"),
    }
}

fn state(error: &StateError) -> String {
    match error {
        StateError::Io(error) => disk(error, "the state"),
        StateError::Sync(_) => SYNC.to_owned(),
        StateError::Damaged(_) => {
            "start `distilld run`: it makes a new state from the sources and the export".to_owned()
        }
    }
}

fn journal(error: &JournalError) -> String {
    match error {
        JournalError::Io(error) => disk(error, "the journal"),
        JournalError::Sync(_) => SYNC.to_owned(),
        JournalError::Damaged(_) => {
            "start `distilld run`: it makes a new state from the sources and the export".to_owned()
        }
    }
}

fn lock(error: &LockError) -> String {
    match error {
        LockError::Held(holder) => format!(
            "stop process {} first (`systemctl stop distilld`), or give this one a root of its own",
            holder.pid
        ),
        LockError::HeldByUnknown(_) => {
            "stop the other distilld first, or give this one a root of its own".to_owned()
        }
        LockError::Io { source, .. } => disk(source, "the lock's directory"),
    }
}

fn export(error: &ExportError) -> String {
    let back = |what| {
        format!("put {what} back, or run `distilld rebuild` to write a fresh one from the sources")
    };
    match error {
        ExportError::Io { source, .. } => disk(source, "the export"),
        ExportError::Sync { .. } => SYNC.to_owned(),
        ExportError::Missing { .. } => {
            format!("mount its disk if it is not mounted; {}", back("it"))
        }
        ExportError::Short { .. } => back("the lost bytes"),
        ExportError::Changed { .. } => back("the file that distilld wrote"),
    }
}

fn rebuild(error: &RebuildError) -> String {
    match error {
        RebuildError::Engine(error) => engine(error),
        RebuildError::Sources { source, .. } => disk(source, "the sources"),
        RebuildError::UnreadBytes { .. } => {
            "make it readable, the log says what was wrong; then run `distilld rebuild` again"
                .to_owned()
        }
        RebuildError::Stopped => {
            "run `distilld rebuild` again when there is time for it".to_owned()
        }
    }
}

fn batch(error: &BatchError) -> String {
    match error {
        BatchError::Walk { source, .. } => disk(source, "the sources"),
        BatchError::Pair(fault) => pair(fault),
        BatchError::Write { source, .. } => disk(source, "the output"),
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
        VerifyError::Replaced { .. } => "run `distilld verify` again".to_owned(),
    }
}

fn retry(error: &RetryError) -> String {
    match error {
        RetryError::Inquire(error) => inquire(error),
        RetryError::Engine(error) => engine(error),
        RetryError::Unknown(_) => {
            "`distilld dead-letters` lists the day-files that have dead letters".to_owned()
        }
    }
}

fn inquire(error: &InquireError) -> String {
    match error {
        InquireError::Root { source, .. } => disk(source, "the root"),
        InquireError::NoState(_) => {
            "start `distilld run`, or give the --state-dir that the daemon was given".to_owned()
        }
        InquireError::Lock(error) => lock(error),
        InquireError::State(error) => state(error),
        InquireError::Journal(error) => journal(error),
        InquireError::NoSnapshotYet { .. } => "try again in a moment".to_owned(),
        InquireError::Unresponsive { .. } => {
            "try again in a moment, or stop the daemon and ask without it".to_owned()
        }
        InquireError::Rejected { .. } => "do what its answer says, then ask again".to_owned(),
        InquireError::IncompatibleResponse { .. } => {
            "restart the daemon, if it was upgraded since it started".to_owned()
        }
        InquireError::Snapshot { .. } => "restart the daemon to have it written anew".to_owned(),
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct UserError {
    /// What stands against it, and where.
    pub what: String,
    /// What to do instead.
    pub fix: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_refuses_has_a_remedy_at_every_depth() {
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
            assert!(
                fix.contains("the right to read and write"),
                "{error}: {fix}"
            );
        }
    }

    #[test]
    fn a_full_disk_asks_for_room_and_not_for_rights() {
        let full = InquireError::State(StateError::Io(ErrorKind::StorageFull.into()));
        assert!(remedy(&full).is_some_and(|fix| fix.starts_with("make room")));
    }

    #[test]
    fn where_files_run_out_no_disk_is_blamed() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let fix = remedy(&EngineError::State(StateError::Io(error))).unwrap_or_default();
        assert!(fix.contains("LimitNOFILE="), "{fix}");
    }

    #[test]
    fn an_error_of_nobodys_has_none() {
        assert_eq!(remedy(&std::fmt::Error), None);
    }
}
