//! Names a missing right: the path that refuses this user, its owner and group, and the command that has the right.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use crate::platform::escape::shell_word;

/// A user or a group: its number, and its name if the host has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The number.
    pub id: u32,
    name: Option<String>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => self.id.fmt(f),
        }
    }
}

impl Account {
    /// Returns an account with this number and name.
    #[cfg(test)]
    pub(crate) fn new(id: u32, name: Option<&str>) -> Self {
        let name = name.map(str::to_owned);
        Self { id, name }
    }

    /// Returns whether the host has a name for it. A program that takes names alone, such as `usermod`, can use no other.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// Returns the account as it is written after `sudo -u`.
    #[must_use]
    pub fn typed(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("'#{}'", self.id),
        }
    }
}

/// Returns the user with this number.
#[must_use]
pub fn user(id: u32) -> Account {
    account("/etc/passwd", id)
}

/// Returns the group with this number.
#[must_use]
pub fn group(id: u32) -> Account {
    account("/etc/group", id)
}

/// Returns the user with this name or number; `None` if the host does not know the name.
#[must_use]
pub fn user_named(name: &str) -> Option<Account> {
    id_in("/etc/passwd", name).map(user)
}

/// Returns the number of the group with this name or number; `None` if the host does not know the name.
#[must_use]
pub fn group_named(name: &str) -> Option<u32> {
    id_in("/etc/group", name)
}

fn id_in(list: &str, name: &str) -> Option<u32> {
    match name.parse() {
        Ok(id) => Some(id),
        Err(_) => id_of(&fs::read_to_string(list).ok()?, name),
    }
}

/// Returns the number of a name in `/etc/passwd` or `/etc/group`.
fn id_of(list: &str, name: &str) -> Option<u32> {
    let line = list
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

fn account(list: &str, id: u32) -> Account {
    let list = fs::read_to_string(list).unwrap_or_default();
    Account {
        id,
        name: name_of(&list, id).map(str::to_owned),
    }
}

/// Returns the name of a number in `/etc/passwd` or `/etc/group`.
fn name_of(list: &str, id: u32) -> Option<&str> {
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(id)).then_some(name)
    })
}

/// The groups of a user: its own and the others that list it as a member.
#[must_use]
pub fn groups_of(user: &Account) -> Option<(u32, Vec<u32>)> {
    let name = user.name.as_deref()?;
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let groups = fs::read_to_string("/etc/group").ok()?;
    Some((own_group(&users, name)?, groups_with(&groups, name)))
}

fn own_group(users: &str, name: &str) -> Option<u32> {
    let of_user = |line: &&str| line.split(':').next() == Some(name);
    users.lines().find(of_user)?.split(':').nth(3)?.parse().ok()
}

fn groups_with(groups: &str, name: &str) -> Vec<u32> {
    let lines = groups.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let (number, members) = (fields.next()?, fields.next()?);
        let is_member = members.split(',').any(|member| member == name);
        number.parse().ok().filter(|_| is_member)
    });
    lines.collect()
}

/// A path that refuses this user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "permission denied: user {user} may not {action} {}, which is of user {owner}, group {group}, mode {mode:04o}", path.display()
)]
pub struct Denied {
    /// The path.
    pub path: PathBuf,
    action: &'static str,
    /// The right that the group would need.
    group_bit: u32,
    user: Account,
    owner: Account,
    group: Account,
    mode: u32,
}

impl Denied {
    /// Returns the first directory on the way to a file or socket that refuses this user, or else the file itself if it
    /// cannot be read, or connected to.
    #[must_use]
    pub fn at(path: &Path) -> Option<Denied> {
        let refuses = |path: &Path, access| rustix::fs::access(path, access) == Err(Errno::ACCESS);
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.retain(|dir| !dir.as_os_str().is_empty());
        let closed = above.iter().rev();
        let closed = closed.into_iter().find(|dir| refuses(dir, Access::EXEC_OK));
        if let Some(dir) = closed {
            return Self::new(dir, "enter", 0o010);
        }
        let is_socket = fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_socket());
        let (access, action, group_bit) = match is_socket {
            true => (Access::WRITE_OK, "connect to", 0o020),
            false => (Access::READ_OK, "read", 0o040),
        };
        match refuses(path, access) {
            true => Self::new(path, action, group_bit),
            false => None,
        }
    }

    /// The same for an error at a path.
    ///
    /// # Errors
    /// The error, if it has another cause.
    pub fn of(path: &Path, error: io::Error) -> Result<Denied, io::Error> {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::at(path).ok_or(error),
            _ => Err(error),
        }
    }

    fn new(path: &Path, action: &'static str, group_bit: u32) -> Option<Denied> {
        let stat = fs::metadata(path).ok()?;
        Some(Denied {
            path: path.to_owned(),
            action,
            group_bit,
            user: user(rustix::process::geteuid().as_raw()),
            owner: user(stat.uid()),
            group: group(stat.gid()),
            mode: stat.mode() & 0o7777,
        })
    }

    /// Returns the missing right without the owner of the path, whose name a sandbox may hide.
    #[must_use]
    pub fn briefly(&self) -> String {
        let (user, action, path) = (&self.user, self.action, self.path.display());
        format!("user {user} may not {action} {path}")
    }

    /// Returns the command that has the right, or gives it.
    #[must_use]
    pub fn fix(&self) -> String {
        let as_owner = self.fix_of_a_change();
        // Membership in root's group is no fix, nor is any for the owner, whose own right counts, or without a name.
        let is_owner = self.owner.id == self.user.id;
        let are_named = self.group.is_named() && self.user.is_named();
        let group_may =
            self.mode & self.group_bit != 0 && self.group.id != 0 && !is_owner && are_named;
        match group_may {
            true => format!(
                "{as_owner}; or join the group with `sudo usermod -aG {} {}` and log in again",
                self.group, self.user
            ),
            false => as_owner,
        }
    }

    /// As [`Self::fix`], for a command that changes something: the group may only read.
    #[must_use]
    pub fn fix_of_a_change(&self) -> String {
        match self.owner.id {
            owner if owner == self.user.id => {
                format!(
                    "give the owner this right: `chmod u+rwX {}`",
                    shell_word(&self.path)
                )
            }
            0 => "repeat the command as root: `sudo distilld ...`".to_owned(),
            _ => format!(
                "repeat the command as its user: `sudo -u {} distilld ...`",
                self.owner.typed()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(mode: u32, owner: u32, group: u32) -> Denied {
        let account = |id: u32| {
            let name = match id {
                7 => Some("distilld"),
                8 => Some("ann"),
                _ => None,
            };
            Account::new(id, name)
        };
        Denied {
            path: "/srv/control.sock".into(),
            action: "connect to",
            group_bit: 0o020,
            user: account(8),
            owner: account(owner),
            group: account(group),
            mode,
        }
    }

    #[test]
    fn the_owner_gives_itself_the_right_that_it_lacks() {
        let fix = "give the owner this right: `chmod u+rwX /srv/control.sock`";
        assert_eq!(denied(0o060, 8, 7).fix(), fix);
        assert_eq!(denied(0o060, 8, 7).fix_of_a_change(), fix);
    }

    #[test]
    fn the_fix_names_only_commands_that_give_the_right() {
        assert_eq!(
            denied(0o660, 7, 7).fix(),
            "repeat the command as its user: `sudo -u distilld distilld ...`; or join the group with `sudo usermod -aG \
             distilld ann` and log in again"
        );
        // `usermod` takes no numbers.
        let alone = "repeat the command as its user: `sudo -u distilld distilld ...`";
        assert_eq!(denied(0o660, 7, 9).fix(), alone);
        let nameless = Denied {
            user: Account::new(9, None),
            ..denied(0o660, 7, 7)
        };
        assert_eq!(nameless.fix(), alone);
        assert_eq!(
            denied(0o660, 7, 7).fix_of_a_change(),
            "repeat the command as its user: `sudo -u distilld distilld ...`"
        );
        assert_eq!(
            denied(0o640, 9, 7).fix(),
            "repeat the command as its user: `sudo -u '#9' distilld ...`"
        );
        assert_eq!(
            denied(0o660, 0, 0).fix(),
            "repeat the command as root: `sudo distilld ...`"
        );
        assert_eq!(
            denied(0o660, 7, 7).to_string(),
            "permission denied: user ann may not connect to /srv/control.sock, which is of user distilld, group distilld, \
             mode 0660"
        );
    }

    #[test]
    fn a_name_is_found_by_its_number() {
        let list = "root:x:0:\nshadow:*:42:a,b\nbroken\ndistilld:x:4:\n";
        assert_eq!(name_of(list, 4), Some("distilld"));
        assert_eq!(name_of(list, 2), None);
        assert_eq!(
            (id_of(list, "shadow"), id_of(list, "sha")),
            (Some(42), None)
        );
        assert_eq!(groups_with("a:x:1:\nb:x:2:c,d\nc:x:3:d\n", "d"), [2, 3]);
        assert_eq!(own_group("d:x:4:5::/:/bin/sh\n", "d"), Some(5));
    }
}
