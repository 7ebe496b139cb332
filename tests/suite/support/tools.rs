//! Finds the host's tools that a test needs: in CI they must exist, elsewhere the test is skipped with a message.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the path of a tool, if it is on the PATH.
///
/// # Panics
/// If `CI` is `true` and it is missing.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    found.or_else(|| skip(&format!("{name} is not installed")))
}

/// Returns the Python of a virtual environment in the target directory, if it has the packages that the lists pin,
/// `NAME==VERSION`. `install` is the command that installs them, with `{}` for the environment.
///
/// # Panics
/// If `CI` is `true` and one is missing.
pub fn python_of(venv: &str, lists: &[&str], install: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_distilld"));
    let venv = target.ancestors().nth(2)?.join(venv);
    let python = venv.join("bin/python");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pinned = lists.iter().flat_map(|list| {
        let text = fs::read_to_string(root.join(list)).unwrap();
        let pinned = text.lines().filter(|line| line.contains("=="));
        pinned.map(str::to_owned).collect::<Vec<String>>()
    });
    let check = "import sys, importlib.metadata as m\n\
                 sys.exit(' '.join(p for p in sys.argv[1:] if m.version(p.split('==')[0]) != p.split('==')[1]))";
    let has = Command::new(&python)
        .args(["-c", check])
        .args(pinned)
        .output();
    if has.is_ok_and(|ended| ended.status.success() || ended.stderr.trim_ascii().is_empty()) {
        return Some(python);
    }
    let venv = venv.display().to_string();
    let install = install.replace("{}", &venv);
    skip(&format!(
        "not all packages are in {venv}; python3 -m venv {venv} && {install}"
    ))
}

/// Prints the reason for skipping a test.
///
/// # Panics
/// If `CI` is `true`: no test is skipped there.
pub fn skip<T>(why: &str) -> Option<T> {
    assert!(
        !env::var("CI").is_ok_and(|ci| ci == "true"),
        "CI has to have it: {why}"
    );
    eprintln!("skipped: {why}");
    None
}

/// Returns the number in an environment variable, if it is set.
pub fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}
