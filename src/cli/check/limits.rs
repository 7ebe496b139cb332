//! FIXME: cli::check::limits

use crate::cli::check::*;
use crate::config::{self, Settings};
use crate::daemon::watch::filesystem::lacks_change_events;
use crate::lake::path::Stream;
use std::path::Path;

pub(super) fn check_events(
    settings: &Settings,
    root: &Path,
    directories: u64,
    found: &mut Findings,
) {
    if settings.watch == config::Watch::Poll {
        found.say(
            Severity::Ok,
            "watching",
            "by polling, as the configuration asks",
        );
        return;
    }
    let bases = Stream::ALL.map(|stream| stream.base(root));
    let deaf = bases
        .iter()
        .map(|base| nearest_there(base))
        .find_map(|place| lacks_change_events(place).map(|name| (place, name)));
    if let Some((place, name)) = deaf {
        let why = format!(
            "{} is on {name}, which does not report every change; distilld polls there, every {} ms",
            place.display(),
            settings.poll.as_millis()
        );
        found.say(Severity::Warn, "file system", why);
    } else {
        found.say(Severity::Ok, "file system", "reports its changes");
    }
    let limit = |name: &str| {
        let path = Path::new("/proc/sys/fs/inotify").join(name);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    // The root and data/ are watched as well.
    let finding = of_limits(
        directories + 2,
        limit("max_user_watches"),
        limit("max_user_instances"),
    );
    found.0.push(finding);
}

/// What inotify's limits mean for so many directories; `None` where the kernel does not tell.
pub(super) fn of_limits(
    watches: u64,
    watches_max: Option<u64>,
    instances_max: Option<u64>,
) -> Finding {
    let (severity, why) = match (watches_max, instances_max) {
        (_, Some(0)) => (
            Severity::Warn,
            "fs.inotify.max_user_instances is 0: nothing can be watched and distilld polls; raise it".to_owned(),
        ),
        (Some(max), _) if watches > max => (
            Severity::Warn,
            format!(
                "{watches} directories need a watch and fs.inotify.max_user_watches is {max}: the oldest are polled; \
                 raise it to at least {}",
                watches * 2
            ),
        ),
        (Some(max), _) if watches.saturating_mul(4) > max.saturating_mul(3) => (
            Severity::Warn,
            format!(
                "{watches} of {max} watches are needed (fs.inotify.max_user_watches, shared with the user's other \
                 programs); raise it before they run out"
            ),
        ),
        (Some(max), _) => (Severity::Ok, format!("{watches} of {max} watches are needed")),
        (None, _) => (
            Severity::Warn,
            "the kernel does not tell its limits; distilld polls where it cannot watch".to_owned(),
        ),
    };
    Finding {
        severity,
        what: "inotify".to_owned(),
        why,
    }
}

pub(super) fn check_free(name: &str, path: &Path, found: &mut Findings) {
    let place = nearest_there(path);
    match rustix::fs::statvfs(place) {
        Ok(stat) => found.0.push(of_free(
            format!("disk of the {name}"),
            stat.f_bavail.saturating_mul(stat.f_frsize),
            (stat.f_files > 0).then_some(stat.f_favail),
        )),
        Err(error) => found.say(
            Severity::Warn,
            format!("disk of the {name}"),
            format!(
                "{} does not tell how much is free: {error}",
                place.display()
            ),
        ),
    }
}

/// What so much free disk means. `free_inodes`: `None` where the file system does not count them.
pub(super) fn of_free(what: String, free_bytes: u64, free_inodes: Option<u64>) -> Finding {
    let mib = free_bytes >> 20;
    let (severity, why) = if free_inodes == Some(0) {
        (
            Severity::Fail,
            "no inode is free, no file can be made; remove files".to_owned(),
        )
    } else if free_bytes < FREE_BYTES_MIN {
        (
            Severity::Fail,
            format!("{mib} MiB free; reading stops when it is full, make room"),
        )
    } else if free_bytes < FREE_BYTES_LOW {
        (
            Severity::Warn,
            format!("{mib} MiB free; reading stops when it is full, make room soon"),
        )
    } else {
        (Severity::Ok, format!("{mib} MiB free"))
    };
    Finding {
        severity,
        what,
        why,
    }
}
