//! After everything is read: changes that neither an event nor an overflow reports. The scans alone find them, each time
//! within the documented pause, and what a status claims about them is true.

use distilld::query::health::Health;
use distilld::query::status::Status;

use super::outside::News;
use super::process::Process;
use super::{SLACK_MS, Simulation};

/// Changes, one after the other: the scan that finds one is not the scan that finds the next.
const CHANGES: usize = 2;
/// Time after a change in which the engine forgets the pair, so that the frequent scan does not visit it any more.
const FORGOTTEN_AFTER_MS: u64 = 40_000;
/// Maximum time that a scan and what follows from it take on a slow disk, milliseconds.
const SCAN_MS: u64 = 20_000;
/// Questions within a pause, on average half as far apart.
const QUESTIONS: u64 = 4;

impl Simulation {
    /// Checks that the scans of the idle daemon find what no event reports.
    pub(super) fn check_silence(&mut self, process: &mut Option<Process>) {
        self.outside().lose_all_events();
        for n in 0..CHANGES {
            // With a shorter pause the frequent scan may find it.
            let pause_ms = self.pause_ms();
            self.run_for(process, FORGOTTEN_AFTER_MS.min(pause_ms));
            self.check_found(process, &News::Lines(n), Health::is_ready);
        }
        let path = self.outside().some_path();
        let is_incomplete = |health| health == Health::Incomplete;
        self.check_found(process, &News::Denied(path.clone()), is_incomplete);
        self.check_found(process, &News::Permitted(path), Health::is_ready);
    }

    /// Returns the longest pause between two full scans, milliseconds.
    fn pause_ms(&self) -> u64 {
        let outside = self.outside();
        let settings = &outside.settings;
        settings.full_scan.max(settings.poll * 30).as_millis() as u64
    }

    /// Returns the documented pause between two full scans with the way in which the daemon detects changes now.
    fn pause_as_documented_ms(&self, status: &Status) -> u64 {
        let outside = self.outside();
        let settings = &outside.settings;
        let pause = match polls(status) {
            true => settings.poll * 30,
            false => settings.full_scan,
        };
        pause.as_millis() as u64
    }

    /// Lets something happen, and checks that its rows, and the health that follows, are there in time.
    fn check_found(
        &mut self,
        process: &mut Option<Process>,
        news: &News,
        is_health: impl Fn(Health) -> bool,
    ) {
        let before = self.status(process);
        let mut pause_ms = self.pause_as_documented_ms(&before);
        let scanned = before.scanned_only.clone().unwrap_or_default();
        assert_eq!(scanned.within_ms, pause_ms, "{before:?}");
        self.outside().happen(news);
        let since_ms = self.outside().now_ms();
        let (mut missing, mut seen_len) = (self.missing_row(), self.seen[0].len());
        loop {
            let status = self.status(process);
            if seen_len != self.seen[0].len() {
                (missing, seen_len) = (self.missing_row(), self.seen[0].len());
            }
            if missing.is_none() && is_health(status.health.verdict) {
                let rows = self.rows_seen();
                assert_eq!(status.export.rows, rows, "{status:?}");
                return;
            }
            if polls(&status) != polls(&before) {
                // The scan that was due by the other way may be the longer one.
                pause_ms = self.pause_ms();
            }
            let passed_ms = self.outside().now_ms() - since_ms;
            assert!(
                passed_ms <= pause_ms + SCAN_MS,
                "a full scan is due each {pause_ms} ms, {passed_ms} ms after {news:?}: {missing:?}, {status:?}"
            );
            let wait_ms = self.outside().random_ms(pause_ms / QUESTIONS);
            self.run_for(process, wait_ms);
        }
    }

    /// Asks for a status, of a process that is starting if it must be.
    pub(super) fn status(&mut self, process: &mut Option<Process>) -> Status {
        self.ready_status = None;
        let until_ms = self.outside().now_ms() + SLACK_MS;
        loop {
            if let Some(status) = self.ready_status.take() {
                return status;
            }
            assert!(self.outside().now_ms() < until_ms, "no answer");
            self.outside().ask_status();
            self.step(process);
        }
    }

    /// Returns the number of rows that a reader has seen.
    pub(super) fn rows_seen(&self) -> u64 {
        let lines = self.seen[0].iter().filter(|byte| **byte == b'\n');
        lines.count() as u64
    }

    fn missing_row(&self) -> Option<String> {
        let pairs = self.outside().lake.pairs();
        super::missing_row(&super::rows_of(&self.seen[0]), &pairs)
    }
}

fn polls(status: &Status) -> bool {
    let mode = status.watch.as_deref().unwrap_or_default();
    mode.starts_with("polling")
}
