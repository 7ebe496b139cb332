//! The user as whom the checks are done. Root may read everything, so what it can read does not show what the daemon can read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::cli::check::{Findings, Severity};
use crate::config::Settings;
use crate::platform::rights::{groups_of, user};
use crate::platform::root_lock::last_holder;

/// Gives this thread, if it is root's, the rights of the daemon's user: the owner of the state directory.
pub(super) fn assume_service_user(settings: &Settings, root: &Path, findings: &mut Findings) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let holder = last_holder(root).ok().flatten();
    let dir = holder.map_or_else(|| settings.state_dir.clone(), |holder| holder.state_dir);
    let Ok(stat) = std::fs::symlink_metadata(&dir) else {
        let why = "the daemon's user is not known before its first start: rights are those of root";
        return findings.add(Severity::Ok, "user", why);
    };
    if !stat.is_dir() || stat.uid() == 0 {
        return;
    }
    let owner = user(stat.uid());
    let (group, others) = groups_of(&owner).unwrap_or((stat.gid(), Vec::new()));
    let groups: Vec<Gid> = others.into_iter().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(owner.id), Gid::from_raw(group));
    let assumed = set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid));
    let of = format!("user {owner}, the owner of {}", dir.display());
    match assumed {
        Ok(()) => findings.add(Severity::Ok, "user", format!("checked as {of}")),
        Err(error) => findings.add(
            Severity::Warn,
            "user",
            format!(
                "the rights of {of}, are not checked ({error}); run `sudo -u {} distilld check`",
                owner.typed()
            ),
        ),
    }
}
