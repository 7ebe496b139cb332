//! Formats the systemd STATUS= line.
//!
//! Ages are coarse, so that an unchanged line is not sent again and no wake-up is needed for it to age.

use std::fmt::Write as _;

use crate::query::health::{Health, HealthReport};

/// Maximum bytes of an error text in the line.
const WHY_BYTES_MAX: usize = 240;

/// The values in the line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitStatus {
    /// The health verdict.
    pub health: HealthReport,
    /// Scored lines with a row in the export.
    pub rows: u64,
    /// Number of runs that wait for evidence.
    pub waiting: u64,
    /// Age of the last row written by this process, seconds.
    pub last_row_s: Option<u64>,
    /// The reason for polling; `None` if events are used.
    pub polling: Option<String>,
    /// The reason why the last reload was rejected.
    pub reload_refused: Option<String>,
    /// Whether the daemon is stopping.
    pub stopping: bool,
}

/// Returns the line of a running engine.
#[must_use]
pub fn of(unit: &UnitStatus) -> String {
    let mut line = doing(unit);
    // Writing to a string cannot fail.
    let _ = write!(
        line,
        ", {} rows, {} waiting for evidence",
        unit.rows, unit.waiting
    );
    if let Some(age_s) = unit.last_row_s {
        let _ = write!(line, ", last row {}", age(age_s));
    }
    if let Some(why) = &unit.polling {
        let _ = write!(line, "; polling, {}", shortened(why));
    }
    if let Some(why) = &unit.reload_refused {
        let _ = write!(
            line,
            "; reload rejected, keeping the old settings: {}",
            shortened(why)
        );
    }
    line
}

fn doing(unit: &UnitStatus) -> String {
    if unit.stopping {
        return "stopping".into();
    }
    match unit.health.verdict {
        Health::Fresh => unit.health.verdict.title(),
        verdict => format!("{}: {}", verdict.title(), shortened(&unit.health.reason)),
    }
}

/// Returns the line during recovery.
#[must_use]
pub fn recovering(read_bytes: u64, written_bytes: u64) -> String {
    match (read_bytes >> 20, written_bytes >> 20) {
        (0, 0) => "recovering".into(),
        (read_mib, written_mib) => {
            format!("recovering, {read_mib} MiB read, {written_mib} MiB written")
        }
    }
}

/// Returns the line that remains after the process failed.
#[must_use]
pub fn failed(error: &str) -> String {
    format!("failed: {error}")
}

fn age(seconds: u64) -> String {
    match seconds {
        0..10 => "just now".into(),
        10..60 => format!("{} s ago", seconds / 10 * 10),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(WHY_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unit: UnitStatus, line: &str) {
        assert_eq!(of(&unit), line);
    }

    #[test]
    fn every_state_has_its_line() {
        let health = |verdict, reason: &str| HealthReport {
            verdict,
            reason: reason.to_owned(),
            fix: None,
        };
        let idle = UnitStatus {
            health: health(Health::Fresh, "everything is read"),
            rows: 7,
            waiting: 12,
            last_row_s: Some(3),
            ..UnitStatus::default()
        };
        let numbers = "7 rows, 12 waiting for evidence, last row just now";
        check(idle.clone(), &format!("fresh, {numbers}"));
        let incomplete = UnitStatus {
            health: health(Health::Incomplete, "cannot read 1 directory"),
            ..idle.clone()
        };
        check(
            incomplete.clone(),
            &format!("incomplete: cannot read 1 directory, {numbers}"),
        );
        check(
            UnitStatus {
                polling: Some("fuse reports no changes".into()),
                reload_refused: Some("distilld.toml:1: unknown key `settle`".into()),
                ..idle.clone()
            },
            &format!(
                "fresh, {numbers}; polling, fuse reports no changes; reload rejected, keeping the old \
                 settings: distilld.toml:1: unknown key `settle`"
            ),
        );
        check(
            UnitStatus {
                stopping: true,
                ..incomplete
            },
            &format!("stopping, {numbers}"),
        );
    }

    #[test]
    fn a_recovery_shows_its_progress() {
        assert_eq!(recovering(1_000, 0), "recovering");
        assert_eq!(
            recovering(300 << 20, 2 << 20),
            "recovering, 300 MiB read, 2 MiB written"
        );
    }

    #[test]
    fn ages_are_rounded_to_one_unit() {
        for (seconds, text) in [
            (0, "just now"),
            (9, "just now"),
            (39, "30 s ago"),
            (60, "1 min ago"),
            (3_599, "59 min ago"),
            (3_600, "1 h ago"),
            (172_799, "47 h ago"),
            (172_800, "2 days ago"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn a_long_error_is_shortened() {
        let line = of(&UnitStatus {
            health: HealthReport {
                verdict: Health::Stopped,
                reason: "ü".repeat(400),
                fix: None,
            },
            ..UnitStatus::default()
        });
        assert!(line.len() < 400 && line.ends_with("0 waiting for evidence"));
    }
}
