//! The status: the account in total and per source class, the lag, waiting runs and faults. It comes from the running
//! daemon or from the files, and never changes state or export.

mod account;
mod detail;
mod fetch;
mod process;
mod retractions;
pub(crate) mod snapshot_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::engine::{Engine, Lag, UnterminatedLines};
use crate::lake::chunk::LineLimits;
use crate::lake::path::{export_path, ledger_path};
use crate::pair::accounting::Account;
use crate::pair::verdict::{LineTotals, PerVerdict, VerdictKind};
use crate::platform::storage::{OsStorage, Storage as _, StorageFile};
use crate::query::dead_letters::WithinLimit;
use crate::query::health::{
    DaemonState, HealthFacts, HealthReport, ScannedOnly, Unreadable, assess,
};
use crate::query::offline::{InquireError, OfflineState, StoredFiles};
use crate::record::timestamp::{day_of, stamp};
use crate::store::recent;

pub use account::{EvidenceStatus, ScoredStatus};
pub(crate) use detail::RUN_ID_SHOWN_MAX;
pub use detail::{
    SkippedPath, UnreadPairs, Unterminated, WaitingRun, measured, unreadable, unterminated,
    waiting_oldest,
};
pub use fetch::status;
pub use process::ProcessStatus;
pub use retractions::RetractionStatus;
pub use snapshot_file::{Publisher, RecentFile, SNAPSHOT_FILE};

/// The state of things. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Whether a daemon is there now.
    pub running: bool,
    /// Its process.
    pub pid: Option<u32>,
    /// The root.
    pub root: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// When this was true, RFC 3339.
    pub as_of: String,
    /// The export.
    pub export: ExportStatus,
    /// Lines of the scored stream and what became of each.
    pub scored: ScoredStatus,
    /// Lines of the evidence stream.
    pub evidence: EvidenceStatus,
    /// How changes are noticed: `events`, or `polling: ` and why.
    pub watch: Option<String>,
    /// Day-files whose growth scans alone find. `None` without a running daemon.
    #[serde(default)]
    pub scanned_only: Option<ScannedOnly>,
    /// Day-files of which only samples are compared when nothing but the time of their inode changes.
    #[serde(default)]
    pub sampled_day_files: u64,
    /// Malformed lines that were too long and are within the current limit.
    #[serde(default)]
    pub within_limit: WithinLimit,
    /// Number of times that this daemon lost events; each time it checked every day-file.
    #[serde(default)]
    pub event_overflows: u64,
    /// When that last was, RFC 3339.
    #[serde(default)]
    pub last_overflow_at: Option<String>,
    /// The last error that stopped reading for a while.
    pub last_fault: Option<Fault>,
    /// When this daemon last wrote a row, RFC 3339.
    pub last_row_at: Option<String>,
    /// The account of each source class, by name; `other` for those past the bound.
    #[serde(default)]
    pub classes: Vec<ClassStatus>,
    /// The runs that wait for the longest time, a few, oldest first. Empty in a published snapshot.
    #[serde(default)]
    pub waiting_oldest: Vec<WaitingRun>,
    /// The lag of the export. `None` without a running daemon.
    #[serde(default)]
    pub lag: Option<Lag>,
    /// The last errors that stopped reading for a while, a few, oldest first.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Last lines that wait for their newline. `None` from a daemon of an earlier version.
    #[serde(default)]
    pub unterminated: Option<Unterminated>,
    /// Day-files and directories that cannot be read now, as far as a running daemon knows.
    #[serde(flatten)]
    pub skipped: Unreadable,
    /// The directory of the scored runs, if it does not exist and no scored run was ever read.
    #[serde(default)]
    pub awaited: Option<PathBuf>,
    /// The health verdict, its reason, and what changes it.
    #[serde(default)]
    pub health: HealthReport,
    /// The retraction ledger in figures.
    #[serde(default)]
    pub retractions: RetractionStatus,
    /// The names and the start of the daemon. `None` if it did not answer itself.
    #[serde(default)]
    pub process: Option<ProcessStatus>,
}

/// The account of the day-files of one name. `lines` is the sum over the verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClassStatus {
    /// The name of the day-files without `.jsonl`.
    pub class: String,
    /// Scored lines read.
    pub lines: u64,
    /// Scored lines by verdict, one JSON key each.
    #[serde(flatten)]
    pub verdicts: PerVerdict<u64>,
    /// Rows for which evidence that differs arrived later.
    pub superseded: u64,
    /// Rows that a later line of the same run overrules.
    pub contradicted: u64,
    /// Evidence lines read.
    pub evidence_lines: u64,
    /// Malformed evidence lines.
    pub evidence_malformed: u64,
}

impl ClassStatus {
    /// Creates the status of a class from its totals.
    #[must_use]
    pub fn new(class: &str, totals: &LineTotals) -> Self {
        Self {
            class: class.to_owned(),
            lines: totals.scored_lines,
            verdicts: totals.by_verdict(),
            superseded: totals.counts.superseded,
            contradicted: totals.counts.contradicted,
            evidence_lines: totals.evidence_lines,
            evidence_malformed: totals.evidence_malformed,
        }
    }
}

/// The export in figures.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExportStatus {
    /// The file.
    pub path: PathBuf,
    /// Its length, bytes.
    pub len_bytes: u64,
    /// Its rows, those without a line included.
    pub rows: u64,
    /// Rows that are made and not in it yet: `rows` and `rows_pending` are the exported lines and `rows_unclaimed`.
    #[serde(default)]
    pub rows_pending: u64,
    /// Its rows with timestamps of the UTC day of `as_of`.
    #[serde(default)]
    pub rows_today: u64,
    /// Rows of which no line in the sources is known.
    pub rows_unclaimed: u64,
    /// Rows whose evidence was replaced later.
    pub superseded: u64,
    /// Rows that a later line of the same run overrules.
    pub contradicted: u64,
}

impl ExportStatus {
    /// Returns the figures without a daemon: of the file as it is, which may lack rows that only the journal has.
    fn of_files(self, root: &Path, state_dir: &Path, now_ms: u64) -> Self {
        let len_bytes = |file: &dyn StorageFile| file.stat().map_or(0, |stat| stat.len_bytes);
        let file = OsStorage.open_read(&export_path(root)).ok();
        let file_bytes = file.as_ref().map_or(0, |file| len_bytes(&**file));
        let len_bytes = self.len_bytes.min(file_bytes);
        let stored = RecentFile::new(Arc::new(OsStorage), state_dir).read();
        let history = file.and_then(|file| recent::resume(stored, &*file, len_bytes).ok());
        Self {
            len_bytes,
            rows_today: history.map_or(0, |history| history.rows_on(day_of(now_ms))),
            ..self
        }
    }
}

/// An error that stopped reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it was first met, RFC 3339.
    pub at: String,
    /// The error.
    pub what: String,
    /// Whether reading has resumed since.
    pub resolved: bool,
    /// The action of an operator that ends it; `None` from a daemon of an earlier version.
    #[serde(default)]
    pub fix: Option<String>,
}

/// The part of a status that only a running daemon knows.
#[derive(Debug, Clone, Default)]
pub struct RuntimeStatus {
    /// The lag of the export.
    pub lag: Lag,
    /// The mode of change detection.
    pub watch: String,
    /// Day-files whose growth scans alone find.
    pub scanned_only: ScannedOnly,
    /// Malformed lines that were too long and are within the current limit.
    pub within_limit: WithinLimit,
    /// Number of event losses, and the time of the last, milliseconds since 1970.
    pub overflows: (u64, Option<u64>),
    /// The last errors that stopped reading for a while, oldest first.
    pub faults: Vec<Fault>,
    /// When the last row was written, milliseconds since 1970.
    pub last_row_wall_ms: Option<u64>,
    /// Day-files and directories that cannot be read.
    pub skipped: Unreadable,
    /// The directory of the scored runs, if it does not exist and no scored run was ever read.
    pub awaited: Option<PathBuf>,
}

impl Status {
    /// Returns the status of the running daemon.
    #[must_use]
    pub fn of_daemon(
        engine: &Engine,
        settings: &Settings,
        root: &Path,
        live: RuntimeStatus,
        now_ms: u64,
    ) -> Self {
        let UnterminatedLines { lines, bytes } = engine.unterminated();
        Self {
            running: true,
            pid: Some(std::process::id()),
            lag: Some(live.lag),
            watch: Some(live.watch),
            scanned_only: Some(live.scanned_only),
            within_limit: live.within_limit,
            event_overflows: live.overflows.0,
            last_overflow_at: live.overflows.1.map(stamp),
            last_fault: live.faults.last().cloned(),
            faults: live.faults,
            last_row_at: live.last_row_wall_ms.map(stamp),
            unterminated: Some(Unterminated { lines, bytes }),
            skipped: live.skipped,
            awaited: live.awaited,
            retractions: RetractionStatus::of_engine(engine),
            ..Self::of_account(
                engine.account(),
                ExportStatus {
                    len_bytes: engine.export_bytes(),
                    rows_pending: engine.rows_pending(),
                    rows_unclaimed: engine.claimable(),
                    rows_today: engine.rows_on(day_of(now_ms)),
                    ..ExportStatus::default()
                },
            )
        }
        .at(root, &settings.state_dir)
        .assessed(DaemonState::Running)
    }

    /// Returns the status of a daemon whose engine ended with a fault that needs an operator: the figures of its files, as
    /// far as they can be read.
    #[must_use]
    pub fn of_stopped(root: &Path, state_dir: &Path, fault: Fault, now_ms: u64) -> Self {
        let figures = match StoredFiles::read(root, state_dir) {
            Ok(StoredFiles { replay, .. }) => {
                let export = ExportStatus {
                    len_bytes: replay.export_bytes,
                    rows_pending: replay.rows_pending,
                    rows_unclaimed: replay.claimable,
                    ..ExportStatus::default()
                };
                Self {
                    retractions: RetractionStatus::of_replay(&replay),
                    ..Self::of_account(&replay.account, export.of_files(root, state_dir, now_ms))
                }
            }
            Err(_) => Self::default(),
        };
        Self {
            running: true,
            pid: Some(std::process::id()),
            as_of: stamp(now_ms),
            last_fault: Some(fault.clone()),
            faults: vec![fault],
            ..figures
        }
        .at(root, state_dir)
        .assessed(DaemonState::Running)
    }

    /// Returns the status with the health verdict that follows from it.
    #[must_use]
    pub fn assessed(mut self, daemon: DaemonState) -> Self {
        self.health = assess(&HealthFacts {
            daemon,
            fault: self.last_fault.as_ref(),
            unreadable: &self.skipped,
            awaited: self.awaited.as_ref(),
            scanned_only: self.scanned_only.as_ref(),
            lag: self.lag,
        });
        self
    }

    /// Returns the status that state and journal give.
    fn of_files(
        files: &OfflineState,
        limits: LineLimits,
        now_ms: u64,
    ) -> Result<Self, InquireError> {
        let state = &files.state;
        let account = &files.account;
        let export = ExportStatus {
            len_bytes: files.export_bytes,
            rows_pending: files.rows_pending,
            rows_unclaimed: state.claimable,
            ..ExportStatus::default()
        };
        let export = export.of_files(&files.root, &files.state_dir, now_ms);
        let status = Self::of_account(account, export);
        Ok(Self {
            as_of: stamp(now_ms),
            retractions: RetractionStatus::of_files(files),
            waiting_oldest: waiting_oldest(state, &OsStorage, &files.root)?,
            within_limit: WithinLimit::count(state, limits.line_bytes_max)?,
            unterminated: Some(unterminated(state, &OsStorage, &files.root, limits)?),
            ..status
        }
        .at(&files.root, &files.state_dir)
        .assessed(DaemonState::NotRunning))
    }

    fn at(mut self, root: &Path, state_dir: &Path) -> Self {
        self.export.path = export_path(root);
        self.retractions.path = ledger_path(&self.export.path);
        self.root = root.to_owned();
        self.state_dir = state_dir.to_owned();
        self
    }

    fn of_account(account: &Account, export: ExportStatus) -> Self {
        let totals = &account.totals;
        let counts = &totals.counts;
        Self {
            export: ExportStatus {
                rows: counts[VerdictKind::Exported]
                    .saturating_add(export.rows_unclaimed)
                    .saturating_sub(export.rows_pending),
                superseded: counts.superseded,
                contradicted: counts.contradicted,
                ..export
            },
            scored: ScoredStatus {
                lines: totals.scored_lines,
                verdicts: totals.by_verdict(),
                balanced: account.balanced(),
            },
            sampled_day_files: totals.sampled,
            evidence: EvidenceStatus {
                lines: totals.evidence_lines,
                malformed: totals.evidence_malformed,
            },
            classes: (account.classes.iter())
                .map(|(class, totals)| ClassStatus::new(class, totals))
                .collect(),
            ..Self::default()
        }
    }
}
