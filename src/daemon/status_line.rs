//! Formats the systemd STATUS= line.
//!
//! Ages are coarse, so that an unchanged line is not sent again and no wake-up is needed for it to age.

use std::fmt::Write as _;

/// Maximum bytes of an error text in the line.
const WHY_BYTES_MAX: usize = 240;

/// The values in the line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitStatus {
    /// Day-files that are known to have news.
    pub day_files_behind: u64,
    /// Directories that are still to be looked through.
    pub directories_behind: u64,
    /// Rows that lines have earned.
    pub rows: u64,
    /// Runs that wait for evidence.
    pub waiting: u64,
    /// Age of the last row written by this process, seconds.
    pub last_row_s: Option<u64>,
    /// Why changes are polled for, where they are.
    pub polling: Option<String>,
    /// Since when nothing is read, and why.
    pub fault: Option<(String, String)>,
    /// Why the configuration that was read last is not in force.
    pub reload_refused: Option<String>,
    /// The end has begun.
    pub stopping: bool,
}

/// The line for an engine at work.
#[must_use]
pub fn of(situation: &UnitStatus) -> String {
    let mut line = doing(situation);
    // Writing to a string cannot fail.
    let _ = write!(
        line,
        ", {} rows, {} waiting for evidence",
        situation.rows, situation.waiting
    );
    if let Some(age_s) = situation.last_row_s {
        let _ = write!(line, ", last row {}", age(age_s));
    }
    if let Some(why) = &situation.polling {
        let _ = write!(line, "; polling, {}", shortened(why));
    }
    if let Some(why) = &situation.reload_refused {
        let _ = write!(
            line,
            "; reload refused, the old settings stay: {}",
            shortened(why)
        );
    }
    line
}

fn doing(situation: &UnitStatus) -> String {
    if situation.stopping {
        return "stopping".into();
    }
    if let Some((since, why)) = &situation.fault {
        return format!(
            "reading stopped at {since}, tried again by itself: {}",
            shortened(why)
        );
    }
    match (situation.day_files_behind, situation.directories_behind) {
        (0, 0) => "fresh, 0 behind".into(),
        (day_files, 0) => format!("catching up, {day_files} day-files behind"),
        (day_files, directories) => format!(
            "catching up, {day_files} day-files behind, {directories} directories to look through"
        ),
    }
}

/// The line while the engine is being opened.
#[must_use]
pub fn recovering(read_bytes: u64, written_bytes: u64) -> String {
    match (read_bytes >> 20, written_bytes >> 20) {
        (0, 0) => "recovering".into(),
        (read_mib, written_mib) => {
            format!("recovering, {read_mib} MiB read, {written_mib} MiB written")
        }
    }
}

/// The line that stays after the process has failed.
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

    fn check(situation: UnitStatus, line: &str) {
        assert_eq!(of(&situation), line);
    }

    #[test]
    fn every_state_has_its_line() {
        let fresh = UnitStatus {
            rows: 7,
            waiting: 12,
            last_row_s: Some(3),
            ..UnitStatus::default()
        };
        let numbers = "7 rows, 12 waiting for evidence, last row just now";
        check(fresh.clone(), &format!("fresh, 0 behind, {numbers}"));
        let behind = UnitStatus {
            day_files_behind: 3,
            ..fresh.clone()
        };
        check(
            behind.clone(),
            &format!("catching up, 3 day-files behind, {numbers}"),
        );
        check(
            UnitStatus {
                directories_behind: 40,
                ..behind.clone()
            },
            &format!("catching up, 3 day-files behind, 40 directories to look through, {numbers}"),
        );
        check(
            UnitStatus {
                polling: Some("fuse reports no changes".into()),
                reload_refused: Some("distilld.toml:1: unknown key `settle`".into()),
                ..fresh.clone()
            },
            &format!(
                "fresh, 0 behind, {numbers}; polling, fuse reports no changes; reload refused, the old settings \
                 stay: distilld.toml:1: unknown key `settle`"
            ),
        );
        check(
            UnitStatus {
                fault: Some(("2026-01-01T00:00:00.000Z".into(), "no space".into())),
                ..behind.clone()
            },
            &format!(
                "reading stopped at 2026-01-01T00:00:00.000Z, tried again by itself: no space, {numbers}"
            ),
        );
        check(
            UnitStatus {
                stopping: true,
                ..behind
            },
            &format!("stopping, {numbers}"),
        );
    }

    #[test]
    fn a_recovery_says_how_far_it_is() {
        assert_eq!(recovering(1_000, 0), "recovering");
        assert_eq!(
            recovering(300 << 20, 2 << 20),
            "recovering, 300 MiB read, 2 MiB written"
        );
    }

    #[test]
    fn an_age_is_as_coarse_as_it_is_long() {
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
    fn a_long_reason_leaves_room_for_the_rest() {
        let line = of(&UnitStatus {
            fault: Some(("then".into(), "ü".repeat(400))),
            ..UnitStatus::default()
        });
        assert!(line.len() < 400 && line.ends_with("0 waiting for evidence"));
    }
}
