//! The commands that give the daemon's user a right which it lacks.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::platform::rights::{group, user};

/// Returns the command that lets the user of this thread read a path: as a member of the path's group.
pub(super) fn let_read(path: &Path) -> String {
    let Ok(stat) = std::fs::metadata(path) else {
        return format!(
            "look for the directory that refuses it: `namei -l {}`",
            path.display()
        );
    };
    let name = user(rustix::process::geteuid().as_raw());
    let (name, owners, path) = (name.typed(), group(stat.gid()), path.display());
    format!(
        "`chmod -R g+rX {path} && usermod -aG {owners} {name}`, then `systemctl restart distilld`"
    )
}

/// Returns the command that gives a directory, or a file of the daemon, to the user of this thread.
pub(super) fn let_write(path: &Path) -> String {
    let name = user(rustix::process::geteuid().as_raw());
    format!("`chown -R {}: {}`", name.typed(), path.display())
}
