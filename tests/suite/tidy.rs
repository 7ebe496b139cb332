//! Rules that no compiler checks: the pure core names no I/O, clock or thread; no module stands on
//! one that stands on it; every file says what it owns.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that cannot fail for a reason outside their arguments.
const PURE: [&str; 25] = [
    "pair/accounting",
    "store/state/blocks",
    "pair/checkpoint",
    "record/firewall",
    "store/export/mark",
    "store/export/segments",
    "record/json/scanner",
    "record/json/simd",
    "record/json/text",
    "pair",
    "pair/claims",
    "pair/line",
    "pair/join",
    "record/parse",
    "pair/history",
    "recovery/decide",
    "record/row",
    "record/timestamp",
    "daemon/status_line",
    "record/synthesize",
    "cli/args",
    "cli/args/flags",
    "cli/args/help",
    "cli/args/rfc3339",
    "batch/verify/days",
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
    "platform::storage",
    "platform::clock",
    "rustix",
    "fastrand",
];

fn source(module: &str) -> String {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(module);
    let path = match base.join("mod.rs") {
        folder if folder.exists() => folder,
        _ => base.with_extension("rs"),
    };
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

/// The paths below `crate` that a text names, cut to their first two segments (`store/journal`).
fn named_paths(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for path in text.split("crate::").skip(1) {
        expand(path, "", 2, &mut named);
    }
    named
}

/// Adds the first `depth` segments of each path in a `use` tree to `named`.
fn expand(tree: &str, prefix: &str, depth: usize, named: &mut BTreeSet<String>) {
    let tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        for member in group_members(group) {
            expand(member, prefix, depth, named);
        }
        return;
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (word, rest) = tree.split_at(tree.find(|c| !is_word(c)).unwrap_or(tree.len()));
    let path = match prefix {
        "" => word.to_owned(),
        prefix => format!("{prefix}/{word}"),
    };
    match rest.strip_prefix("::") {
        Some(rest) if depth > 1 => expand(rest, &path, depth - 1, named),
        _ => {
            named.insert(path);
        }
    }
}

/// The comma-separated members of a group whose opening brace is already consumed.
fn group_members(group: &str) -> Vec<&str> {
    let mut members = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(group[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    members.retain(|member| !member.is_empty());
    members
}

/// The folders of `src/` from the lowest layer to the highest. A file imports from its own folder and from lower layers
/// alone, so that no two folders can import each other.
const LAYERS: [&[&str]; 10] = [
    &["config", "platform", "record"],
    &["console", "lake"],
    &["pair"],
    &["store"],
    &["engine", "batch"],
    &["recovery"],
    &["query"],
    &["daemon"],
    &["http"],
    &["cli"],
];

fn layer_of(folder: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&folder))
}

/// The text of a product file without its tests and comments.
fn product_code(text: &str) -> String {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<&str>>().join("\n")
}

#[test]
fn imports_point_to_lower_layers_alone() {
    assert_eq!(
        named_paths("use crate::a::{B, c::D};\nuse crate::{e::{F, g::G}, h};"),
        ["a/B", "a/c", "e/F", "e/g", "h"].map(String::from).into()
    );
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let (mut imports, mut upward) = (0, Vec::new());
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let folder = relative.iter().next().and_then(|name| name.to_str());
        let folder = folder.unwrap_or_default();
        if ["lib.rs", "main.rs"].contains(&folder) {
            continue;
        }
        let own = layer_of(folder).unwrap_or_else(|| panic!("src/{folder} is in no layer"));
        for path in named_paths(&product_code(&fs::read_to_string(&file).unwrap())) {
            let other = path.split('/').next().unwrap_or_default();
            if other == folder {
                continue;
            }
            imports += 1;
            if layer_of(other).is_none_or(|layer| layer >= own) {
                upward.push(format!("src/{} imports crate::{path}", relative.display()));
            }
        }
    }
    assert!(imports > 200, "only {imports} imports found");
    assert!(upward.is_empty(), "{upward:#?}");
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
