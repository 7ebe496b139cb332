//! The health verdict. [`assess`] is the only function that decides it; `status`, the unit's status line, `/readyz`, the
//! metrics and the status page print its result.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::as_typed;
use crate::console::table::thousands;
use crate::engine::Lag;
use crate::query::status::{Fault, SkippedPath};

/// The error of a path that is a FIFO, a socket, a device or a directory in the place of a day-file.
const NOT_REGULAR: &str = "not a regular file";
/// The beginning of the error of a path with a file in the place of a directory.
const NOT_DIRECTORY: &str = "Not a directory";

/// The health of a lake and its daemon. Each verdict precludes those after it in [`assess`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No daemon runs on the root.
    #[default]
    NotRunning,
    /// A daemon holds the lock and has not published a status yet.
    Starting,
    /// The daemon recovers the state of the last process.
    Recovering,
    /// The daemon runs, and its engine thread makes no progress.
    Unresponsive,
    /// Reading is stopped by a fault.
    Stopped,
    /// A day-file or a directory cannot be read.
    Incomplete,
    /// The daemon reads what existed at its start.
    CatchingUp,
    /// A change is unread for longer than the objective.
    Lagging,
    /// The directory of the scored runs does not exist, and no scored run was ever read.
    NoSources,
    /// Everything below the root was read within the objective.
    Fresh,
}

impl Health {
    /// All verdicts.
    pub const ALL: [Health; 10] = [
        Health::NotRunning,
        Health::Starting,
        Health::Recovering,
        Health::Unresponsive,
        Health::Stopped,
        Health::Incomplete,
        Health::CatchingUp,
        Health::Lagging,
        Health::NoSources,
        Health::Fresh,
    ];

    /// Returns the name used in JSON and metric labels. It never changes.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Health::NotRunning => "not_running",
            Health::Starting => "starting",
            Health::Recovering => "recovering",
            Health::Unresponsive => "unresponsive",
            Health::Stopped => "stopped",
            Health::Incomplete => "incomplete",
            Health::CatchingUp => "catching_up",
            Health::Lagging => "lagging",
            Health::NoSources => "no_sources",
            Health::Fresh => "fresh",
        }
    }

    /// Returns the name that people read: the code, with spaces.
    #[must_use]
    pub fn title(self) -> String {
        self.code().replace('_', " ")
    }

    /// Returns whether a reader of the export may rely on it: nothing is unread for longer than the objective, and
    /// nothing is unreadable.
    #[must_use]
    pub const fn is_ready(self) -> bool {
        matches!(self, Health::Fresh | Health::NoSources)
    }

    /// Returns whether the verdict passes without an action of the operator.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(
            self,
            Health::Starting | Health::Recovering | Health::CatchingUp
        )
    }
}

/// The verdict with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthReport {
    /// The verdict.
    pub verdict: Health,
    /// The facts that decide it, as one phrase.
    pub reason: String,
    /// The action or command that changes the verdict; `None` if none is needed.
    #[serde(default)]
    pub fix: Option<String>,
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.verdict.title(), self.reason)
    }
}

/// The condition of the daemon and its engine thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonState {
    /// No daemon holds the lock.
    NotRunning,
    /// A daemon holds the lock and has not published a status.
    Starting,
    /// The daemon recovers the state.
    Recovering,
    /// The engine thread responds.
    Running,
    /// The engine thread is busy with a long pass and has not responded yet.
    Busy,
    /// The engine thread responds to no request and makes no progress.
    Unresponsive,
}

/// The facts from which the verdict follows.
#[derive(Debug, Clone, Copy)]
pub struct HealthFacts<'a> {
    /// The condition of the daemon.
    pub daemon: DaemonState,
    /// The last error that stopped reading.
    pub fault: Option<&'a Fault>,
    /// The paths that cannot be read.
    pub unreadable: &'a Unreadable,
    /// The directory of the scored runs, if it does not exist and no scored run was ever read.
    pub awaited: Option<&'a PathBuf>,
    /// The day-files whose growth scans alone find.
    pub scanned_only: Option<&'a ScannedOnly>,
    /// The lag; `None` without a daemon.
    pub lag: Option<Lag>,
}

/// The day-files whose growth no event reports, so that a scan has to find it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScannedOnly {
    /// Their number, as far as they were listed.
    pub day_files: u64,
    /// The reason; `None` if there are none.
    pub why: Option<String>,
    /// The maximum time until a scan finds their growth: the pause between two scans of all day-files, milliseconds.
    pub within_ms: u64,
}

impl ScannedOnly {
    /// Returns the figures as one phrase; `None` if events report all growth.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        let within = self.within_ms as f64 / 1_000.0;
        (self.day_files > 0).then(|| {
            let noun = if self.day_files == 1 {
                "day-file"
            } else {
                "day-files"
            };
            format!(
                "scans alone find the growth of {} {noun}, within {within} s",
                thousands(self.day_files)
            )
        })
    }
}

/// The day-files and directories that cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unreadable {
    /// Number of day-files.
    #[serde(rename = "day_files_skipped", default)]
    pub day_files: u64,
    /// Number of directories.
    #[serde(rename = "directories_skipped", default)]
    pub directories: u64,
    /// The first of them, directories before day-files.
    #[serde(rename = "skipped", default)]
    pub paths: Vec<SkippedPath>,
}

impl Unreadable {
    /// Returns whether everything can be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.day_files == 0 && self.directories == 0
    }

    /// Returns the action that makes them readable.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        let is_other_kind = |path: &SkippedPath| path.why == NOT_REGULAR;
        let is_below_file = |path: &SkippedPath| path.why.starts_with(NOT_DIRECTORY);
        match self.paths.first() {
            Some(_) if self.paths.iter().all(is_other_kind) => {
                "replace them by regular files, or move them out of the lake"
            }
            Some(_) if self.paths.iter().all(is_below_file) => {
                "move away the file that is in the place of a directory (`namei -l` of the path shows it), and restore \
                 the directory"
            }
            _ => {
                "give the user of the service the right to read them, or mount their file system; `distilld check` \
                 names the rights that are missing"
            }
        }
    }

    /// Returns the numbers and the first path, as one phrase.
    #[must_use]
    pub fn describe(&self) -> String {
        let counts = [
            (self.directories, "directory", "directories"),
            (self.day_files, "day-file", "day-files"),
        ];
        let counts = counts.iter().filter(|(count, ..)| *count > 0);
        let counts: Vec<String> = counts
            .map(|(count, one, many)| {
                format!(
                    "{} {}",
                    thousands(*count),
                    if *count == 1 { one } else { many }
                )
            })
            .collect();
        let first = self.paths.first().map_or(String::new(), |path| {
            format!("; the first: {} ({})", path.path.escape_debug(), path.why)
        });
        format!("cannot read {}{first}", counts.join(" and "))
    }
}

/// Returns the health verdict.
#[must_use]
pub fn assess(facts: &HealthFacts<'_>) -> HealthReport {
    let lag = facts.lag.unwrap_or_default();
    let (verdict, reason, fix) = match facts.daemon {
        DaemonState::NotRunning => (
            Health::NotRunning,
            "no daemon runs on this root".to_owned(),
            Some("`systemctl start distilld`, or `distilld run`"),
        ),
        DaemonState::Starting => (
            Health::Starting,
            "the daemon has not published a status yet".to_owned(),
            None,
        ),
        DaemonState::Recovering => (
            Health::Recovering,
            "recovering the state of the last process; reading begins afterwards".to_owned(),
            None,
        ),
        DaemonState::Busy => (
            Health::CatchingUp,
            "the engine is busy with a long pass; the figures are the last known ones".to_owned(),
            None,
        ),
        DaemonState::Unresponsive => (
            Health::Unresponsive,
            "the engine thread makes no progress; the figures are the last known ones".to_owned(),
            Some("see the kernel log: a disk of the sources, the state or the export may hang"),
        ),
        DaemonState::Running => assess_running(facts, lag),
    };
    HealthReport {
        verdict,
        reason,
        fix: fix.map(as_typed),
    }
}

/// The fix of a fault that is retried.
const RETRIED: &str = "reading is retried automatically; `distilld check` shows what is missing";

fn assess_running<'f>(facts: &HealthFacts<'f>, lag: Lag) -> (Health, String, Option<&'f str>) {
    if let Some(fault) = facts.fault.filter(|fault| !fault.resolved) {
        let reason = format!("reading stopped at {}: {}", fault.at, fault.what);
        let fix = fault.fix.as_deref().unwrap_or(RETRIED);
        return (Health::Stopped, reason, Some(fix));
    }
    if !facts.unreadable.is_empty() {
        let unreadable = facts.unreadable;
        return (
            Health::Incomplete,
            unreadable.describe(),
            Some(unreadable.fix()),
        );
    }
    if !lag.caught_up {
        let reason = format!("reading what existed at the start, {}", pending(&lag));
        return (Health::CatchingUp, reason, None);
    }
    if lag.age_ms > lag.objective_ms {
        let reason = format!(
            "a change is unread for {} s, {}; the objective is {} s",
            shown_seconds(lag.age_ms),
            pending(&lag),
            lag.objective_ms as f64 / 1_000.0
        );
        let fix = "relieve the processors, or the disk of the export: the metric distilld_commit_duration_seconds has the \
                   time of its commits";
        return (Health::Lagging, reason, Some(fix));
    }
    if let Some(dir) = facts.awaited {
        let reason = format!("waiting for {}, which does not exist", dir.display());
        let fix = "start the scorers, or correct `root` in the configuration";
        return (Health::NoSources, reason, Some(fix));
    }
    let mut reason = if lag.is_zero() {
        "everything is read".to_owned()
    } else {
        pending(&lag)
    };
    // What no event reports is read as of the last scan.
    if let Some(scanned) = facts.scanned_only.and_then(ScannedOnly::describe) {
        reason = format!("{reason}; {scanned}");
    }
    (Health::Fresh, reason, None)
}

/// Returns seconds, with their fraction below ten of them.
fn shown_seconds(ms: u64) -> f64 {
    match ms {
        0..10_000 => ms as f64 / 1_000.0,
        _ => (ms / 1_000) as f64,
    }
}

/// Returns the pending files and bytes of a lag, as one phrase.
#[must_use]
pub fn pending(lag: &Lag) -> String {
    let plural = if lag.files == 1 { "" } else { "s" };
    let mut text = format!("{} file{plural} pending", thousands(lag.files));
    if lag.bytes > 0 {
        let floor = if lag.bytes_exact { "" } else { "at least " };
        text.push_str(&format!(", {floor}{} bytes", thousands(lag.bytes)));
    }
    if let Some(lines) = lag.lines.filter(|lines| *lines > 0) {
        let plural = if lines == 1 { "" } else { "s" };
        text.push_str(&format!(", {} line{plural}", thousands(lines)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(change: impl FnOnce(&mut Lag)) -> Option<Lag> {
        let mut lag = Lag {
            age_ms: 900,
            objective_ms: 1_000,
            caught_up: true,
            ..Lag::default()
        };
        change(&mut lag);
        Some(lag)
    }

    fn fault(resolved: bool) -> Fault {
        Fault {
            at: "now".into(),
            what: "no space".into(),
            resolved,
            fix: None,
        }
    }

    fn unreadable() -> Unreadable {
        Unreadable {
            day_files: 1,
            directories: 2,
            paths: vec![SkippedPath {
                path: "data/evidence/2026".into(),
                stream: "evidence".into(),
                why: "Permission denied".into(),
            }],
        }
    }

    #[test]
    fn the_fix_fits_the_reason_of_what_cannot_be_read() {
        let mut paths = unreadable();
        assert!(paths.fix().contains("right to read"));
        paths.paths[0].why = NOT_REGULAR.to_owned();
        assert!(paths.fix().contains("regular files"));
        paths.paths.extend(unreadable().paths);
        assert!(paths.fix().contains("right to read"));
    }

    #[test]
    fn each_verdict_has_one_cause_and_the_worst_one_counts() {
        let (stopped, resolved, blind) = (fault(false), fault(true), unreadable());
        let awaited = PathBuf::from("/srv/lake/data/scored-runs");
        let readable = Unreadable::default();
        let fresh = HealthFacts {
            daemon: DaemonState::Running,
            fault: Some(&resolved),
            unreadable: &readable,
            awaited: None,
            scanned_only: None,
            lag: lag(|_| {}),
        };
        let scanned = ScannedOnly {
            day_files: 1_200,
            why: Some("links".into()),
            within_ms: 3_600_000,
        };
        let by_scans = assess(&HealthFacts {
            scanned_only: Some(&scanned),
            ..fresh
        });
        assert_eq!(
            by_scans.reason,
            "everything is read; scans alone find the growth of 1,200 day-files, within 3600 s"
        );
        let all = HealthFacts {
            daemon: DaemonState::Running,
            fault: Some(&stopped),
            unreadable: &blind,
            awaited: Some(&awaited),
            scanned_only: None,
            lag: lag(|lag| (lag.age_ms, lag.caught_up) = (2_000, false)),
        };
        let cases = [
            (fresh, Health::Fresh, "everything is read"),
            (
                HealthFacts {
                    awaited: Some(&awaited),
                    ..fresh
                },
                Health::NoSources,
                "waiting for /srv/lake/data/scored-runs",
            ),
            (
                HealthFacts {
                    awaited: Some(&awaited),
                    lag: lag(|lag| (lag.age_ms, lag.files, lag.bytes) = (2_000, 1, 1_200)),
                    ..fresh
                },
                Health::Lagging,
                "unread for 2 s, 1 file pending, at least 1,200 bytes; the objective is 1 s",
            ),
            (
                HealthFacts {
                    fault: None,
                    unreadable: &readable,
                    ..all
                },
                Health::CatchingUp,
                "at the start",
            ),
            (
                HealthFacts { fault: None, ..all },
                Health::Incomplete,
                "cannot read 2 directories and 1 day-file; the first: data/evidence/2026 (Permission denied)",
            ),
            (all, Health::Stopped, "no space"),
            (
                HealthFacts {
                    daemon: DaemonState::Unresponsive,
                    ..all
                },
                Health::Unresponsive,
                "no progress",
            ),
            (
                HealthFacts {
                    daemon: DaemonState::Recovering,
                    ..all
                },
                Health::Recovering,
                "recovering",
            ),
            (
                HealthFacts {
                    daemon: DaemonState::Starting,
                    ..all
                },
                Health::Starting,
                "not published",
            ),
            (
                HealthFacts {
                    daemon: DaemonState::NotRunning,
                    ..all
                },
                Health::NotRunning,
                "no daemon",
            ),
        ];
        let mut verdicts: Vec<Health> = Vec::new();
        for (facts, verdict, reason) in cases {
            let report = assess(&facts);
            assert_eq!(report.verdict, verdict, "{report}");
            assert!(report.reason.contains(reason), "{report}");
            assert_eq!(
                serde_json::to_value(report.verdict).unwrap(),
                verdict.code()
            );
            verdicts.push(verdict);
        }
        verdicts.sort_unstable();
        assert_eq!(verdicts, Health::ALL, "each verdict is produced once");
    }
}
