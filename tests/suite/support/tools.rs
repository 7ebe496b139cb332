//! Owns the question whether a tool of the host that a test needs is there: where CI says so it must be, elsewhere the
//! test may be passed over, and says why.

use std::env;
use std::path::PathBuf;

/// The tool, if it is on the PATH.
///
/// # Panics
/// Where `CI` is `true` and it is missing.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    found.or_else(|| skip(&format!("{name} is not installed")))
}

/// Says why a test is passed over.
///
/// # Panics
/// Where `CI` is `true`: there nothing is.
pub fn skip<T>(why: &str) -> Option<T> {
    assert!(
        !env::var("CI").is_ok_and(|ci| ci == "true"),
        "CI has to have it: {why}"
    );
    eprintln!("passed over: {why}");
    None
}

/// The number that an environment variable gives, if it is set.
pub fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}
