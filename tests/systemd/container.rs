//! One booted copy of the Debian, from its first process to the removal of all its files. It needs no service manager
//! on the host, so that it works in a build container too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::base::remove;
use super::process::{run, run_well, wait_until};

/// Maximum boot time; a Debian boots in about two seconds.
const BOOT: Duration = Duration::from_secs(90);
/// Maximum stop time, bounded by each service's stop time-out.
const STOP: Duration = Duration::from_secs(60);

/// A running system.
#[derive(Debug)]
pub struct Container {
    nspawn: Mutex<Child>,
    /// Its first process, by its id on the host.
    leader: u32,
    root: PathBuf,
    cgroups: Vec<PathBuf>,
}

impl Container {
    /// Boots a copy of `tree` below `home`.
    ///
    /// # Errors
    /// The system does not finish booting.
    pub fn boot(tree: &Path, home: &Path) -> Result<Self, String> {
        remove_left_over(home)?;
        let root = home.join(format!("run-{}", std::process::id()));
        run_well(
            Command::new("cp")
                .args(["--archive", "--reflink=auto"])
                .args([tree, &root]),
        )?;
        let cgroups = own_cgroups();
        let log = home.join("console.log");
        let console = fs::File::create(&log).map_err(|error| error.to_string())?;
        let nspawn = nspawn(&root, &cgroups)
            .stdin(Stdio::null())
            .stderr(console.try_clone().map_err(|error| error.to_string())?)
            .stdout(console)
            .spawn()
            .map_err(|error| format!("systemd-nspawn: {error}"))?;
        let mut container = Self {
            leader: 0,
            nspawn: Mutex::new(nspawn),
            root,
            cgroups,
        };
        let booted = wait_until(BOOT, || container.is_up());
        if booted {
            return Ok(container);
        }
        container.stop();
        let console = fs::read_to_string(&log).unwrap_or_default();
        Err(format!("the system did not come up:\n{console}"))
    }

    fn is_up(&mut self) -> bool {
        self.leader = self.find_leader().unwrap_or_default();
        if self.leader == 0 {
            return false;
        }
        let state = run(self.command("systemctl").arg("is-system-running"));
        // Degraded: a unit of the Debian failed, which is unrelated to distilld.
        state.is_ok_and(|state| ["running", "degraded"].contains(&state.text.trim()))
    }

    fn find_leader(&self) -> Option<u32> {
        let nspawn = self.nspawn.lock().unwrap_or_else(PoisonError::into_inner);
        let children = format!("/proc/{0}/task/{0}/children", nspawn.id());
        let children = fs::read_to_string(children).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Returns a command for a program inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader.to_string()])
            .args(["--mount", "--pid", "--ipc", "--net", "--uts", "--cgroup"])
            .args(["--root", "--wd", "--", program])
            .env_clear()
            .envs([
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                ("LC_ALL", "C.UTF-8"),
                ("DEBIAN_FRONTEND", "noninteractive"),
            ]);
        command
    }

    /// Returns the id on the host of a process inside.
    pub fn outside(&self, process_id: &str) -> Option<u32> {
        let namespace = |id: &str| fs::read_link(format!("/proc/{id}/ns/pid")).ok();
        let own = namespace(&self.leader.to_string());
        let is_it = |id: &String| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            ids.and_then(|ids| ids.split_whitespace().last()) == Some(process_id)
                && namespace(id) == own
        };
        let processes = fs::read_dir("/proc").ok()?;
        let mut ids = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        ids.find(is_it)?.parse().ok()
    }

    /// Returns the path on the host of a path inside, including mounts.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.leader))
    }

    /// Stops the system and removes its files.
    pub fn stop(&self) {
        let mut nspawn = self.nspawn.lock().unwrap_or_else(PoisonError::into_inner);
        _ = run(Command::new("kill").arg(nspawn.id().to_string()));
        if !wait_until(STOP, || matches!(nspawn.try_wait(), Ok(Some(_)))) {
            _ = nspawn.kill();
            _ = nspawn.wait();
        }
        if let Err(error) = remove(&self.root) {
            eprintln!("{error}");
        }
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
    }
}

/// Removes the copies of runs that did not finish.
fn remove_left_over(home: &Path) -> Result<(), String> {
    for entry in fs::read_dir(home)
        .map_err(|error| error.to_string())?
        .flatten()
    {
        let name = entry.file_name();
        let from_env = name.to_str().and_then(|name| name.strip_prefix("run-"));
        if from_env.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Returns the call of systemd-nspawn. It gets a signal if this process ends without one.
fn nspawn(root: &Path, cgroups: &[PathBuf]) -> Command {
    // Joins the cgroups given first, then executes the command after `--`.
    const JOIN: &str = r#"while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit; shift; done; shift; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", JOIN, "sh"]).args(cgroups);
    command.args(["--", "setpriv", "--pdeathsig", "TERM", "systemd-nspawn"]);
    if !manager_runs() {
        // Without a manager that could provide a scope, the current cgroups are used.
        command.arg("--keep-unit");
    }
    command
        .args(["--boot", "--register=no", "--settings=no", "--console=pipe"])
        .args(["--private-network", "--resolv-conf=off", "--timezone=off"])
        .args(["--link-journal=no", "--machine=distilld-test"])
        // A file system with change events, independent of the host's; a lake is a few hundred megabytes.
        .arg("--tmpfs=/srv:mode=0755,size=2G")
        .arg("--directory")
        .arg(root);
    command
}

fn manager_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Creates a cgroup in each hierarchy that systemd uses. Without a service manager on the host, two concurrent runs
/// would share theirs otherwise.
fn own_cgroups() -> Vec<PathBuf> {
    if manager_runs() {
        return Vec::new();
    }
    let mine = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let hierarchies = ["", "unified", "systemd"].map(|name| Path::new("/sys/fs/cgroup").join(name));
    let mounted = hierarchies
        .iter()
        .filter(|hierarchy| hierarchy.join("cgroup.procs").exists());
    let named = mounted.filter_map(|hierarchy| {
        let prefix = match hierarchy.ends_with("systemd") {
            true => "name=systemd:",
            false => "0::",
        };
        let inside = mine.lines().find_map(|line| line.split_once(prefix))?.1;
        let name = format!("distilld-test-{}", std::process::id());
        Some(hierarchy.join(inside.trim_start_matches('/')).join(name))
    });
    named
        .filter(|cgroup| fs::create_dir(cgroup).is_ok())
        .collect()
}

/// Removes a cgroup's directories, the deepest first; its files vanish with them.
fn remove_cgroup(cgroup: &Path) {
    for below in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&below.path());
        }
    }
    // A cgroup that is still in use remains, empty, until the next boot of the host.
    _ = fs::remove_dir(cgroup);
}
