//! Checks of change events, inotify limits and free disk space.

use crate::cli::check::files::nearest_existing;
use crate::cli::check::*;
use crate::config::{self, Settings};
use crate::daemon::watch::filesystem::lacks_change_events;
use crate::lake::path::Stream;
use std::path::Path;

pub(super) fn check_events(
    settings: &Settings,
    root: &Path,
    directories: u64,
    findings: &mut Findings,
) {
    if settings.watch == config::Watch::Poll {
        findings.ok("watching", "polling, as configured");
        return;
    }
    let bases = Stream::ALL.map(|stream| stream.base(root));
    let without_events = bases
        .iter()
        .map(|base| nearest_existing(base))
        .find_map(|place| lacks_change_events(place).map(|name| (place, name)));
    if let Some((place, name)) = without_events {
        let why = format!(
            "{} is on {name}, which does not report every change; distilld polls there, every {} ms",
            place.display(),
            settings.poll.as_millis()
        );
        let fix = "set a smaller `poll_ms` if rows arrive too late, or move the lake to a local file system";
        findings.warn("file system", why, fix);
    } else {
        findings.ok("file system", "reports its changes");
    }
    let limit = |name: &str| {
        let path = Path::new("/proc/sys/fs/inotify").join(name);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    // The root and data/ are watched as well.
    let finding = limits_finding(
        directories + 2,
        limit("max_user_watches"),
        limit("max_user_instances"),
    );
    findings.0.push(finding);
}

/// Compares the number of needed watches with inotify's limits; a limit is `None` if the kernel does not return it.
pub(super) fn limits_finding(
    watches: u64,
    watches_max: Option<u64>,
    instances_max: Option<u64>,
) -> Finding {
    let raise = |key: &str, value: u64| {
        format!("`sysctl fs.inotify.{key}={value}`, and the same in a file in /etc/sysctl.d")
    };
    let raise_watches = raise("max_user_watches", watches.saturating_mul(2));
    let (severity, why, fix) = match (watches_max, instances_max) {
        (_, Some(0)) => (
            Severity::Warn,
            "fs.inotify.max_user_instances is 0: no directory can be watched and distilld polls"
                .to_owned(),
            Some(raise("max_user_instances", 128)),
        ),
        (Some(max), _) if watches > max => (
            Severity::Warn,
            format!(
                "{watches} directories need a watch and fs.inotify.max_user_watches is {max}: the oldest are polled"
            ),
            Some(raise_watches),
        ),
        (Some(max), _) if watches.saturating_mul(4) > max.saturating_mul(3) => (
            Severity::Warn,
            format!(
                "{watches} of {max} watches are needed (fs.inotify.max_user_watches, shared with the user's other \
                 programs)"
            ),
            Some(raise_watches),
        ),
        (Some(max), _) => (
            Severity::Ok,
            format!("{watches} of {max} watches are needed"),
            None,
        ),
        (None, _) => (
            Severity::Warn,
            "cannot read the kernel's limits, distilld polls directories that it cannot watch"
                .to_owned(),
            Some("`sysctl fs.inotify` shows them as root".to_owned()),
        ),
    };
    Finding::new(severity, "inotify", why, fix.as_deref())
}

pub(super) fn check_free(name: &str, path: &Path, findings: &mut Findings) {
    let place = nearest_existing(path);
    match rustix::fs::statvfs(place) {
        Ok(stat) => findings.0.push(free_finding(
            format!("disk of the {name}"),
            stat.f_bavail.saturating_mul(stat.f_frsize),
            (stat.f_files > 0).then_some(stat.f_favail),
        )),
        Err(error) => {
            findings.warn(
                format!("disk of the {name}"),
                format!("cannot read the free space of {}: {error}", place.display()),
                format!("`df {}` shows the error", place.display()),
            );
        }
    }
}

/// Rates an amount of free disk space. `free_inodes` is `None` if the file system does not count them.
pub(super) fn free_finding(what: String, free_bytes: u64, free_inodes: Option<u64>) -> Finding {
    let mib = free_bytes >> 20;
    let (severity, why, fix) = if free_inodes == Some(0) {
        (
            Severity::Fail,
            "no inode is free, no file can be created".to_owned(),
            Some("remove files; `df -i` shows the file systems"),
        )
    } else if free_bytes < FREE_BYTES_MIN {
        (
            Severity::Fail,
            format!("{mib} MiB free, reading pauses when it is full"),
            Some("free space"),
        )
    } else if free_bytes < FREE_BYTES_LOW {
        (
            Severity::Warn,
            format!("{mib} MiB free, reading pauses when it is full"),
            Some("free space soon"),
        )
    } else {
        (Severity::Ok, format!("{mib} MiB free"), None)
    };
    Finding::new(severity, what, why, fix)
}
