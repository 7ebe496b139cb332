//! Finds the host's tools that a test needs: in CI they must exist, elsewhere the test is skipped with a message.

use std::env;
use std::path::PathBuf;

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
