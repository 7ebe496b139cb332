//! The user as whom the checks are done. Root may read everything, so what it can read does not show what the daemon can read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::cli::check::unit::Unit;
use crate::cli::check::{Finding, Findings, Severity};
use crate::config::Settings;
use crate::platform::rights::{Account, group_named, groups_of, user, user_named};
use crate::platform::root_lock::last_holder;

/// A user whose rights this thread can take on.
struct Identity {
    user: Account,
    group: u32,
    others: Vec<u32>,
    /// Where it comes from.
    of: String,
}

/// Gives this thread, if it is root's, the rights of the daemon's user: that of the unit, or else the owner of the
/// state directory.
pub(super) fn assume_service_user(
    settings: &Settings,
    unit: Option<&Unit>,
    root: &Path,
    findings: &mut Findings,
) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let identity = match unit.filter(|unit| !unit.has_dynamic_user) {
        Some(unit) => of_unit(unit),
        None => of_state(settings, root),
    };
    let identity = match identity {
        Ok(identity) => identity,
        Err(finding) => return findings.0.push(*finding),
    };
    let groups: Vec<Gid> = identity.others.into_iter().map(Gid::from_raw).collect();
    let (uid, gid) = (
        Uid::from_raw(identity.user.id),
        Gid::from_raw(identity.group),
    );
    let assumed = set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid));
    let of = format!("user {}, {}", identity.user, identity.of);
    match assumed {
        Ok(()) => findings.ok("user", format!("checked as {of}")),
        Err(error) => {
            findings.warn(
                "user",
                format!("the rights of {of}, are not checked ({error})"),
                format!("run `sudo -u {} distilld check`", identity.user.typed()),
            );
        }
    }
}

/// The user, the group and the other groups that systemd gives to the processes of a unit.
fn of_unit(unit: &Unit) -> Result<Identity, Box<Finding>> {
    let name = &unit.name;
    let unknown = |what: &str, given: &str| {
        // Another name service may have it, so that this is no failure.
        let why = format!(
            "the {what} {given} of {name} is not in the files below /etc, and rights are those of root"
        );
        let fix = format!("create it, or run `systemctl edit {name}`");
        Box::new(Finding::new(Severity::Warn, "user", why, Some(&fix)))
    };
    if matches!(unit.user.as_str(), "" | "root" | "0") {
        let why = format!(
            "{name} runs as root; what its CapabilityBoundingSet= takes from root is not checked"
        );
        let fix = format!("set `User=` with `systemctl edit {name}`");
        return Err(Box::new(Finding::new(
            Severity::Warn,
            "user",
            why,
            Some(&fix),
        )));
    }
    let user = user_named(&unit.user).ok_or_else(|| unknown("user", &unit.user))?;
    let (own, mut others) = groups_of(&user).unwrap_or((user.id, Vec::new()));
    let number = |group: &String| group_named(group).ok_or_else(|| unknown("group", group));
    let group = match unit.group.is_empty() {
        true => own,
        false => number(&unit.group)?,
    };
    for group in &unit.other_groups {
        others.push(number(group)?);
    }
    let also = match unit.capabilities.as_str() {
        "" => String::new(),
        capabilities => format!(", without its AmbientCapabilities={capabilities}"),
    };
    Ok(Identity {
        user,
        group,
        others,
        of: format!("the user of {name}{also}"),
    })
}

/// The owner of the state directory.
fn of_state(settings: &Settings, root: &Path) -> Result<Identity, Box<Finding>> {
    let rights_of_root = |why: String| Box::new(Finding::new(Severity::Ok, "user", why, None));
    let holder = last_holder(root).ok().flatten();
    let dir = holder.map_or_else(|| settings.state_dir.clone(), |holder| holder.state_dir);
    let Ok(stat) = std::fs::symlink_metadata(&dir) else {
        let why = "the daemon's user is not known before its first start: rights are those of root";
        return Err(rights_of_root(why.to_owned()));
    };
    if !stat.is_dir() || stat.uid() == 0 {
        let why = format!("{} is of root: rights are those of root", dir.display());
        return Err(rights_of_root(why));
    }
    let user = user(stat.uid());
    let (group, others) = groups_of(&user).unwrap_or((stat.gid(), Vec::new()));
    let of = format!("the owner of {}", dir.display());
    Ok(Identity {
        user,
        group,
        others,
        of,
    })
}
