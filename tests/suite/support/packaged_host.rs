//! A host with instances: a process that sees an `/etc` of its own, with their configurations in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Bench;

/// The `/etc`.
pub struct PackagedHost {
    etc: tempfile::TempDir,
}

impl PackagedHost {
    /// Makes one without an instance.
    pub fn new() -> Self {
        let etc = tempfile::tempdir().unwrap();
        fs::create_dir(etc.path().join("distilld")).unwrap();
        for known in ["passwd", "group"] {
            fs::copy(Path::new("/etc").join(known), etc.path().join(known)).unwrap();
        }
        Self { etc }
    }

    /// Returns the path of a file in the directory of the configurations.
    pub fn file(&self, name: &str) -> PathBuf {
        self.etc.path().join("distilld").join(name)
    }

    /// Writes the configuration of an instance.
    pub fn configure(&self, name: &str, text: &str) {
        fs::write(self.file(&format!("{name}.toml")), text).unwrap();
    }

    /// Adds an instance on the root of a bench.
    pub fn add(&self, name: &str, bench: &Bench) {
        self.configure(name, &format!("root = {:?}\n", bench.root()));
    }

    /// Returns a command that sees this host. The program under test is on its path.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let script = "mount --bind \"$1\" /etc && shift && exec \"$@\"";
        let built = Path::new(env!("CARGO_BIN_EXE_distilld")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("unshare");
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", built.display()))
            .args(["--mount", "--map-root-user", "sh", "-ec", script, "sh"])
            .arg(self.etc.path())
            .arg(program)
            .args(arguments);
        command
    }

    /// Returns the command of the daemon of an instance, which serves a page.
    pub fn daemon(&self, name: &str) -> Command {
        let run = ["--instance", name, "run", "--listen", "127.0.0.1:0"];
        self.command("distilld", &run)
    }
}
