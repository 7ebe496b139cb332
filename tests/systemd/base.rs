//! The Debian that is booted: a minimal one, created by debootstrap once and kept until its recipe changes or it is
//! too old. An existing tree is complete: it gets its name when it is finished.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::process::run_well;

/// Debian 12, with systemd 252: the oldest that distilld supports. The variable below selects another.
const SUITE: &str = "bookworm";
/// Selects another Debian to test on, such as `trixie`.
const SUITE_VARIABLE: &str = "DISTILLD_TEST_DEBIAN";
/// Packages that a minimal Debian lacks and a usual installation has: the manager, its bus, and the dependencies.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,procps,init-system-helpers,jq";
/// Maximum age of a tree, after which it is created again with the mirror's security updates.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Returns the tree below `home`, creating it if necessary.
///
/// # Errors
/// Debootstrap fails; the error contains its log.
pub fn tree(home: &Path) -> Result<PathBuf, String> {
    let suite = std::env::var(SUITE_VARIABLE).unwrap_or_else(|_| SUITE.to_owned());
    let tree = home.join(format!("{suite}-{}", PACKAGES.replace(',', "-")));
    if is_recent(&tree) {
        return Ok(tree);
    }
    eprintln!("making a Debian in {}", tree.display());
    let has_unarmed = home.join("unfinished");
    for old in [&tree, &has_unarmed] {
        remove(old)?;
    }
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
        .arg(&has_unarmed);
    run_well(&mut debootstrap)?;
    fs::rename(&has_unarmed, &tree).map_err(|error| error.to_string())?;
    Ok(tree)
}

fn is_recent(tree: &Path) -> bool {
    // Debootstrap writes this file last.
    let made = fs::metadata(tree.join("var/lib/dpkg/status")).and_then(|status| status.modified());
    let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
    age.is_ok_and(|age| age < AGE_MAX)
}

/// Removes a tree if it exists.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove(tree: &Path) -> Result<(), String> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{} cannot be removed: {error}", tree.display()))
        }
        _ => Ok(()),
    }
}
