//! The CPU time of a program by the names of its threads, read from the kernel while they run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The CPU time of each thread when it was last seen.
#[derive(Debug, Clone, Default)]
pub struct ThreadTimes(BTreeMap<String, (String, Duration)>);

impl ThreadTimes {
    /// Reads the threads that a process has now. What a thread did after the last reading before its end is not seen.
    pub fn read(&mut self, process_id: u32) {
        let Ok(tasks) = fs::read_dir(format!("/proc/{process_id}/task")) else {
            return;
        };
        for task in tasks.flatten() {
            if let Some(seen) = name_and_time(&task.path()) {
                let id = task.file_name().to_string_lossy().into_owned();
                self.0.insert(id, seen);
            }
        }
    }

    /// Adds the times to those of other runs, by name.
    pub fn add_to(&self, sums: &mut BTreeMap<String, Duration>) {
        for (name, time) in self.0.values() {
            *sums.entry(name.clone()).or_default() += *time;
        }
    }
}

/// Returns `None` where the thread has ended.
fn name_and_time(task: &Path) -> Option<(String, Duration)> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    let times = fs::read_to_string(task.join("schedstat")).ok()?;
    let run_ns = times.split_whitespace().next()?.parse().ok()?;
    Some((name.trim().to_owned(), Duration::from_nanos(run_ns)))
}
