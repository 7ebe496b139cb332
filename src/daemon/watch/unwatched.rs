//! The day-files whose growth no event reports, so that scans alone find it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::daemon::watch::linked::LINKED_MAX;
use crate::daemon::watch::queue::{Directory, directory};
use crate::daemon::watch::{Mode, Watch};
use crate::lake::path::Stream;
use crate::query::health::ScannedOnly;

/// Maximum number of links that are noted one by one.
const NOTED_MAX: usize = 1 << 16;

/// The day-files without events, as far as directories were listed.
#[derive(Debug, Default)]
pub(super) struct Unwatched {
    /// The number of day-files in each day that does not report all its changes.
    days: BTreeMap<Directory, u64>,
    /// Day-files with another name and without a watch of their own, by day.
    links: BTreeMap<Directory, BTreeSet<Box<Path>>>,
    links_count: usize,
}

impl Unwatched {
    pub(super) fn add_link(&mut self, day_file: &Directory) {
        if self.links_count >= NOTED_MAX {
            return;
        }
        let names = self.links.entry(day_of(day_file)).or_default();
        self.links_count += usize::from(names.insert(day_file.1.clone()));
    }

    pub(super) fn remove_link(&mut self, day_file: &Directory) {
        let day = day_of(day_file);
        let Some(names) = self.links.get_mut(&day) else {
            return;
        };
        self.links_count -= usize::from(names.remove(&day_file.1));
        if names.is_empty() {
            self.links.remove(&day);
        }
    }

    pub(super) fn has_no_links(&self) -> bool {
        self.links.is_empty()
    }

    /// Forgets the days for which `is_gone` holds.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&Directory) -> bool) {
        self.days.retain(|day, _| !is_gone(day));
        self.links.retain(|day, _| !is_gone(day));
        self.links_count = self.links.values().map(BTreeSet::len).sum();
    }
}

fn day_of((stream, path): &Directory) -> Directory {
    directory(*stream, path.parent().unwrap_or(path))
}

impl Watch {
    /// Notes that a day was listed and has this number of day-files.
    pub fn note_day(&mut self, stream: Stream, day: &Path, day_files: u64) {
        let place = directory(stream, day);
        let armed = self.armed.get(&place);
        let reports = |device| !matches!(self.devices.get(&device), Some(Some(_)));
        let is_watched = armed.is_some_and(|armed| reports(armed.device));
        match is_watched || day_files == 0 {
            true => self.unwatched.days.remove(&place),
            false => self.unwatched.days.insert(place, day_files),
        };
    }

    /// Forgets the noted days below a directory that are in none of its subdirectories, as a scan listed them.
    pub fn keep_days(&mut self, stream: Stream, dir: &Path, subdirectories: &[PathBuf]) {
        let depth = dir.components().count() + 1;
        let noted = self
            .unwatched
            .days
            .keys()
            .chain(self.unwatched.links.keys());
        let is_gone = |(of, day): &&Directory| {
            let child: PathBuf = day.components().take(depth).collect();
            *of == stream && day.starts_with(dir) && !subdirectories.contains(&child)
        };
        let gone: BTreeSet<Directory> = noted.filter(is_gone).cloned().collect();
        if !gone.is_empty() {
            self.unwatched.forget(|day| gone.contains(day));
        }
    }

    /// Returns the number of day-files whose growth scans alone find, with the reason and the pause between the scans.
    #[must_use]
    pub fn scanned_only(&self, within_ms: u64) -> ScannedOnly {
        let Unwatched { days, links, .. } = &self.unwatched;
        let in_days: u64 = days.values().sum();
        let links = links.iter().filter(|(day, _)| !days.contains_key(*day));
        let links: u64 = links.map(|(_, names)| names.len() as u64).sum();
        let why = match (in_days, links, self.mode()) {
            (0, 0, _) => None,
            (1.., _, Mode::Polling { why }) => Some(why),
            (1.., _, Mode::Events) => Some("their directories are not watched yet".to_owned()),
            (0, _, _) => Some(format!(
                "they are links or have several names; {LINKED_MAX} of these have a watch, one for each file"
            )),
        };
        ScannedOnly {
            day_files: in_days + links,
            why,
            within_ms,
        }
    }
}
