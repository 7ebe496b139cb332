//! Rules that no compiler checks: the pure core names no I/O, clock or thread; every file says what it owns.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that cannot fail for a reason outside their arguments.
const PURE: [&str; 22] = [
    "account",
    "blocks",
    "checkpoint",
    "firewall",
    "json",
    "json_text",
    "pair",
    "pair/claims",
    "pair/line",
    "pair/step",
    "parse",
    "recent",
    "recover",
    "row",
    "status_line",
    "synthesize",
    "args",
    "args/flags",
    "args/help",
    "args/stamp",
    "refusal",
    "verify/days",
];

/// What would make them impure.
const IMPURE: [&str; 13] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::time",
    "std::process",
    "tokio",
    "Instant::",
    "SystemTime",
    "crate::storage",
    "crate::clock",
    "rustix",
    "fastrand",
];

fn source(module: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(module)
        .with_extension("rs");
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_pure_core_names_no_io_clock_or_thread() {
    for module in PURE {
        let text = source(module);
        for impure in IMPURE {
            assert!(!text.contains(impure), "src/{module}.rs names {impure}");
        }
    }
}

#[test]
fn every_file_says_what_it_owns() {
    let mut files = Vec::new();
    for dir in ["src", "tests", "examples", "benches", "fuzz/fuzz_targets"] {
        rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut files);
    }
    assert!(files.len() > 40, "only {} files found", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} does not open with what it owns",
            file.display()
        );
    }
}

/// What is only asserted where nobody runs it is not asserted.
#[test]
fn no_assertion_is_left_out_of_the_build_that_people_run() {
    let mut files = Vec::new();
    rust_files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    assert!(files.len() > 40, "only {} files found", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(
            !product.contains("debug_assert"),
            "{} asserts in debug builds alone",
            file.display()
        );
    }
}
