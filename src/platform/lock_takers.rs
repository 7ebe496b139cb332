//! The processes that took the lock of a file, as far as the kernel names them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Returns whether there is such a process, as far as this namespace shows it.
pub(super) fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(Errno::SRCH)))
}

/// Returns whether the kernel names the processes that took the lock, and each of them is of a user who owns neither the
/// file nor this process, or has ended and left the lock to a child, which a daemon does not have. The process that the
/// file names proves nothing: it may be in another container.
pub(super) fn is_held_by_reader(file: &File) -> bool {
    let (Ok(stat), Ok(locks)) = (file.metadata(), fs::read_to_string("/proc/locks")) else {
        return false;
    };
    let (major, minor) = (rustix::fs::major(stat.dev()), rustix::fs::minor(stat.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", stat.ino());
    let own = [0, stat.uid(), rustix::process::geteuid().as_raw()];
    let holders = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, of, ..] if of == place => pid.parse().ok(),
            _ => None,
        }
    });
    let holders: Vec<u32> = holders.collect();
    let is_reader = |pid: &u32| match user_of(*pid) {
        Some(user) => !own.contains(&user),
        None => !is_alive(*pid),
    };
    !holders.is_empty() && holders.iter().all(is_reader)
}

/// Returns the real user of a process.
fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().next()?.parse().ok()
}
