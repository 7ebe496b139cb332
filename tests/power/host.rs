//! The host's side of these tests: its programs, and file systems of a test's own that are unmounted on drop. Never
//! touches a mount or a process of another owner.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::http::{get, metric};
use crate::support::kill_harness::wait_until;

/// Timeout for operations of the host that should complete immediately.
pub const HOST_DEADLINE: Duration = Duration::from_secs(20);

/// Returns whether the host has everything a test needs. Otherwise fails in CI and prints the reason elsewhere.
pub fn has(programs: &[&str]) -> bool {
    has_all(lack_of(programs))
}

/// As [`has`], for a file system of the kernel.
pub fn has_kernel_file_system(is_known: bool, file_system: &str) -> bool {
    has_all((!is_known).then(|| format!("the kernel has no {file_system}")))
}

fn has_all(lack: Option<String>) -> bool {
    if let Some(lack) = &lack {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "this test cannot run: {lack}");
        eprintln!("skipped: {lack}");
    }
    lack.is_none()
}

fn lack_of(programs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return Some(format!("it needs {device}"));
        }
    }
    let missing = programs.iter().find(|program| on_path(program).is_none())?;
    Some(format!("it needs {missing}"))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Runs a program that must succeed.
pub fn must(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Returns a command that passes `command` to a program that starts it.
pub fn wrapped(command: &Command, program: &str, arguments: &[&str]) -> Command {
    let mut wrapped = Command::new(program);
    wrapped
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .args(arguments)
        .arg(command.get_program())
        .args(command.get_args());
    wrapped
}

/// Creates a directory for disk images, in memory if possible, because their loss is part of the test.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Creates an image with an empty ext4.
pub fn make_ext4(image: &Path, len_bytes: u64) {
    File::create(image).unwrap().set_len(len_bytes).unwrap();
    let lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
    let image = image.to_str().unwrap();
    must(
        "mkfs.ext4",
        &["-q", "-F", "-b", "4096", "-m", "0", "-E", lazy, image],
    );
}

/// A mount that belongs to a test.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
}

impl Mounted {
    /// Creates the directory and runs `mount ARGUMENTS DIR`.
    pub fn new(arguments: &[&str], dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let mut all = arguments.to_vec();
        all.push(dir.to_str().unwrap());
        must("mount", &all);
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Mounts an image through a loop device.
    pub fn image(image: &Path, dir: &Path, options: &str) -> Self {
        let options = format!("loop,{options}");
        Self::new(&["-o", &options, image.to_str().unwrap()], dir)
    }

    /// Adopts a mount of another program.
    pub fn by_another(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// The mount point.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Mounted {
    /// Remounts the file system with other options.
    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        must("mount", &["-o", &options, self.dir.to_str().unwrap()]);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = wait_until(HOST_DEADLINE, || {
            let tried = Command::new("umount").arg(&self.dir).output();
            Ok(tried.is_ok_and(|output| output.status.success()))
        });
        if unmounted != Ok(true) {
            eprintln!("{} is unmounted lazily", self.dir.display());
            _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
    }
}

/// Asserts that the metrics report `mode` as the only way in which changes are detected.
pub fn assert_watch_mode(address: SocketAddr, mode: &str) {
    let text = get(address, "/metrics").body;
    for known in ["events", "polling"] {
        let name = format!("distilld_watch_mode{{mode=\"{known}\"}}");
        let expected = if known == mode { 1.0 } else { 0.0 };
        assert_eq!(metric(&text, &name), Some(expected), "{name}: {text}");
    }
}
