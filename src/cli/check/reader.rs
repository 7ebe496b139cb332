//! The commands that give the daemon's user a right which it lacks.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::platform::escape::shell_word;
use crate::platform::rights::{group, user};

/// Returns the command that lets the user of this thread read a path: as a member of the path's group.
pub(super) fn let_read(path: &Path) -> String {
    let Ok(stat) = std::fs::metadata(path) else {
        return format!(
            "look for the directory that refuses it: `namei -l {}`",
            shell_word(path)
        );
    };
    if is_owner(&stat) {
        return format!("`chmod -R u+rX {}`", shell_word(path));
    }
    let name = user(rustix::process::geteuid().as_raw());
    let (name, owners, path) = (name.typed(), group(stat.gid()), shell_word(path));
    format!(
        "`chmod -R g+rX {path} && usermod -aG {owners} {name}`, then `systemctl restart distilld`"
    )
}

/// Returns the command that lets the user of this thread write a directory, or a file of the daemon, which refused that
/// with an error.
pub(super) fn let_write(path: &Path, error: &io::Error) -> String {
    let place = shell_word(path);
    let attributes = attributes_of(path);
    if attributes.contains(StatxAttributes::IMMUTABLE) {
        return format!("`chattr -i {place}`: an attribute forbids to change it");
    }
    if attributes.contains(StatxAttributes::APPEND) {
        return format!("`chattr -a {place}`: an attribute permits to append to it alone");
    }
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return format!("mount its file system read-write: `findmnt -T {place}` shows which it is");
    }
    if std::fs::metadata(path).is_ok_and(|stat| is_owner(&stat)) {
        return format!("`chmod -R u+rwX {place}`");
    }
    let name = user(rustix::process::geteuid().as_raw());
    format!("`chown -R {}: {place}`", name.typed())
}

/// Returns whether a file is of the user of this thread, who lacks a right of its own then.
fn is_owner(stat: &std::fs::Metadata) -> bool {
    stat.uid() == rustix::process::geteuid().as_raw()
}

/// Returns the attributes of a file, as `lsattr` shows them; none where the file system has no such attribute.
fn attributes_of(path: &Path) -> StatxAttributes {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    let attributes = stat.map(|stat| stat.stx_attributes & stat.stx_attributes_mask);
    attributes.unwrap_or(StatxAttributes::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_file_gives_itself_the_right_that_it_lacks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (path, denied) = (file.path(), io::ErrorKind::PermissionDenied.into());
        let own = format!("chmod -R u+rwX {}", path.display());
        assert!(let_write(path, &denied).contains(&own));
        let own = format!("chmod -R u+rX {}", path.display());
        assert!(let_read(path).contains(&own));
    }
}
