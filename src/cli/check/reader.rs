//! The commands that give the daemon's user a right which it lacks. Root types them, so that each is complete: a user or a
//! group without a name is written as `chown` and `setfacl` take it, and `usermod`, which takes names alone, is not used
//! for it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::process::{getegid, geteuid, getgroups};

use crate::platform::escape::shell_word;
use crate::platform::rights::{Account, group, user};

/// The programs that set an access control list are not part of every system.
const SETFACL: [&str; 3] = ["/usr/bin/setfacl", "/bin/setfacl", "/usr/local/bin/setfacl"];

/// The right that a user lacks at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// To read it and all below it.
    Read,
    /// To reach what is in this directory.
    Enter,
}

impl Right {
    /// Returns the flags and the permission of `chmod`, without the user class.
    fn mode(self) -> (&'static str, &'static str) {
        match self {
            Right::Read => ("-R ", "rX"),
            Right::Enter => ("", "x"),
        }
    }
}

/// Returns the command that lets the user of this thread read a path below `base`, all of which it has to read.
pub(super) fn let_read(path: &Path, base: &Path) -> String {
    match closed_above(path) {
        Some(dir) if dir.starts_with(base) => give(&dir, &dir, Right::Read),
        Some(dir) => let_enter(&dir),
        None => give(path, path, Right::Read),
    }
}

/// As [`let_read`], for several paths, the first of which decides about the way. Those of the same owner and group get
/// the right with one command for the directory that has all of them.
pub(super) fn let_read_all(paths: &[&Path], base: &Path) -> String {
    let owners = |path: &Path| {
        let stat = std::fs::metadata(path).ok()?;
        Some((stat.uid(), stat.gid()))
    };
    let Some((first, others)) = paths.split_first() else {
        return let_read(base, base);
    };
    if closed_above(first).is_some() {
        return let_read(first, base);
    }
    let own = owners(first);
    let same = others.iter().filter(|path| owners(path) == own);
    let place = same.fold(first.to_path_buf(), |place, path| common(&place, path));
    give(first, &place, Right::Read)
}

/// Returns the deepest path that has both below it.
fn common(one: &Path, other: &Path) -> PathBuf {
    let parts = one.components().zip(other.components());
    let same = parts.take_while(|(one, other)| one == other);
    same.map(|(part, _)| part).collect()
}

/// Returns the command that lets the user of this thread reach what is in a directory that is not the daemon's own.
pub(super) fn let_enter(dir: &Path) -> String {
    give(dir, dir, Right::Enter)
}

/// Returns the command that gives a right at `place`, whose owner and group are those of `path`.
fn give(path: &Path, place: &Path, right: Right) -> String {
    let Ok(stat) = std::fs::metadata(path) else {
        return format!(
            "look for the directory that refuses it: `namei -l {}`",
            shell_word(path)
        );
    };
    let (user, own_group) = (user(geteuid().as_raw()), group(getegid().as_raw()));
    let others = getgroups().unwrap_or_default();
    let mut groups = others.iter().map(|group| group.as_raw());
    let is_member = stat.gid() == own_group.id || groups.any(|group| group == stat.gid());
    let asked = Asked {
        place: shell_word(&real(place)),
        is_dir: real(place).is_dir(),
        right,
        user,
        own_group,
    };
    if stat.uid() == asked.user.id {
        asked.chmod('u')
    } else if is_member {
        asked.chmod('g')
    } else {
        asked.give_stranger(&group(stat.gid()), has_setfacl())
    }
}

fn has_setfacl() -> bool {
    SETFACL.iter().any(|program| Path::new(program).exists())
}

/// A right that is missing.
struct Asked {
    /// The place as a word of a command.
    place: String,
    is_dir: bool,
    right: Right,
    user: Account,
    own_group: Account,
}

impl Asked {
    fn chmod(&self, class: char) -> String {
        let (flags, mode) = self.right.mode();
        format!("`chmod {flags}{class}+{mode} {}`", self.place)
    }

    /// Returns the commands for a user who is not in the group of the place. Membership in root's group would give far
    /// more than this right, and an account without a name cannot be a member or have one.
    fn give_stranger(&self, owners: &Account, has_setfacl: bool) -> String {
        let (flags, mode) = self.right.mode();
        let (place, user) = (&self.place, &self.user);
        let opened = format!("chmod {flags}g+{mode} {place}");
        if owners.id != 0 && owners.is_named() && user.is_named() {
            let (owners, user) = (
                shell_word(&owners.to_string()),
                shell_word(&user.to_string()),
            );
            return format!(
                "`{opened} && usermod -aG {owners} {user}`, then `systemctl restart distilld`"
            );
        }
        let by_group = match owners.id {
            0 => {
                let own = shell_word(&self.own_group.to_string());
                format!("`chgrp {flags}{own} {place} && {opened}`")
            }
            owners => format!(
                "`{opened}`, and start the daemon with that group: `--group-add {owners}` of a container, \
                 `SupplementaryGroups={owners}` in a unit"
            ),
        };
        if !has_setfacl {
            return by_group;
        }
        let user = shell_word(&user.to_string());
        let later = match self.right == Right::Read && self.is_dir {
            true => format!(",d:u:{user}:{mode}"),
            false => String::new(),
        };
        format!("`setfacl {flags}-m u:{user}:{mode}{later} {place}`; or {by_group}")
    }
}

/// Returns the command that lets the user of this thread write a directory, or a file of the daemon, which refused that
/// with an error.
pub(super) fn let_write(path: &Path, error: &io::Error) -> String {
    let path = &real(path);
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
    if std::fs::metadata(path).is_ok_and(|stat| stat.uid() == geteuid().as_raw()) {
        return format!("`chmod -R u+rwX {place}`");
    }
    format!("`chown -R {} {place}`", owner())
}

/// Returns the command that creates a directory for the user of this thread, below one which refused that with an error.
pub(super) fn create(dir: &Path, below: &Path, error: &io::Error) -> String {
    let is_refusal = error.kind() == io::ErrorKind::PermissionDenied;
    match is_refusal && !has_attribute(below) {
        true => format!(
            "`install -d -o {} -g {} {}`",
            shell_word(&user(geteuid().as_raw()).to_string()),
            shell_word(&group(getegid().as_raw()).to_string()),
            shell_word(dir)
        ),
        false => let_write(below, error),
    }
}

/// Returns the user and the group of this thread as a word for `chown`, which does not take a number with an empty group.
pub(super) fn owner() -> String {
    let (user, group) = (user(geteuid().as_raw()), group(getegid().as_raw()));
    shell_word(&format!("{user}:{group}"))
}

/// Returns the first directory on the way to a path that this thread may not enter.
pub(super) fn closed_above(path: &Path) -> Option<PathBuf> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let is_closed = |dir: &&&Path| {
        let refused = rustix::fs::access(**dir, Access::EXEC_OK);
        refused == Err(rustix::io::Errno::ACCESS) && dir.is_dir()
    };
    let closed = above.iter().rev().find(is_closed);
    closed.map(|dir| dir.to_path_buf())
}

/// Returns whether an attribute of a directory keeps even its owner from writing it.
pub(super) fn has_attribute(dir: &Path) -> bool {
    attributes_of(dir).intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

/// Returns what a link names: `chown -R` and `chgrp -R` do not follow it.
fn real(path: &Path) -> PathBuf {
    match path.is_symlink() {
        true => std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
        false => path.to_owned(),
    }
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
        assert!(let_read(path, path).contains(&own));
    }

    #[test]
    fn only_a_user_and_a_group_with_names_are_brought_together_by_usermod() {
        let fix = |user: Account, owners: Account, has_setfacl, right| {
            let own_group = group(64_001);
            let asked = Asked {
                place: "/x".into(),
                is_dir: true,
                right,
                user,
                own_group,
            };
            asked.give_stranger(&owners, has_setfacl)
        };
        let nameless = || user(64_001);
        let named = || Account::new(7, Some("distilld"));
        let scorers = || Account::new(8, Some("scorers"));
        assert_eq!(
            fix(named(), scorers(), true, Right::Read),
            "`chmod -R g+rX /x && usermod -aG scorers distilld`, then `systemctl restart distilld`"
        );
        let by_group = "`chmod -R g+rX /x`, and start the daemon with that group: `--group-add 8` of a container, \
                        `SupplementaryGroups=8` in a unit";
        assert_eq!(fix(nameless(), scorers(), false, Right::Read), by_group);
        assert_eq!(
            fix(named(), Account::new(8, None), false, Right::Read),
            by_group
        );
        assert_eq!(
            fix(nameless(), scorers(), true, Right::Read),
            format!("`setfacl -R -m u:64001:rX,d:u:64001:rX /x`; or {by_group}")
        );
        assert_eq!(
            fix(named(), group(0), true, Right::Enter),
            "`setfacl -m u:distilld:x /x`; or `chgrp 64001 /x && chmod g+x /x`"
        );
    }

    #[test]
    fn paths_have_the_directory_in_common_that_has_both() {
        let dir = common(Path::new("/a/b/c"), Path::new("/a/bc/d"));
        assert_eq!(dir, Path::new("/a"));
        assert_eq!(
            common(Path::new("/a/b"), Path::new("/a/b/c")),
            Path::new("/a/b")
        );
    }
}
