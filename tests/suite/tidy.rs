//! Rules that no compiler checks: the pure core names no I/O, clock or thread; no module stands on
//! one that stands on it; every file says what it owns.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that cannot fail for a reason outside their arguments.
const PURE: [&str; 26] = [
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
    "refusal",
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
    "crate::storage",
    "crate::clock",
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

/// Folders whose members are modules of their own in the check for circles.
const FOLDERS: [&str; 6] = ["cli", "config", "console", "lake", "platform", "record"];

/// The modules that each module of the crate imports. A module is a file or folder directly below `src/` or directly
/// below one of [`FOLDERS`], with all that is below it.
fn module_imports() -> BTreeMap<String, BTreeSet<String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let is_of_tests = file.file_name().is_some_and(|name| name == "tests.rs");
        let relative = file.strip_prefix(&src).unwrap().with_extension("");
        let segments: Vec<&str> = relative.iter().filter_map(|name| name.to_str()).collect();
        let depth = if FOLDERS.contains(&segments[0]) { 2 } else { 1 };
        let module = segments[..depth.min(segments.len())].join("/");
        if is_of_tests
            || segments.ends_with(&["mod"]) && depth == 2
            || segments.len() == 1 && ["lib", "main"].contains(&segments[0])
        {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = product
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code: Vec<&str> = code.collect();
        let named = named_paths(&code.join("\n"));
        imports.entry(module).or_default().extend(named);
    }
    let modules: BTreeSet<String> = imports.keys().cloned().collect();
    for (module, named) in &mut imports {
        let known = named.iter().map(|path| match modules.contains(path) {
            true => path.clone(),
            false => path.split('/').next().unwrap_or_default().to_owned(),
        });
        *named = known
            .filter(|name| name != module && modules.contains(name))
            .collect();
    }
    imports
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    assert_eq!(
        named_paths("use crate::a::{B, c::D};\nuse crate::{e::{F, g::G}, h};"),
        ["a/B", "a/c", "e/F", "e/g", "h"].map(String::from).into()
    );
    let mut imports = module_imports();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 200);
    loop {
        let leaves = imports.iter().filter(|(_, named)| named.is_empty());
        let leaves: Vec<String> = leaves.map(|(module, _)| module.clone()).collect();
        if leaves.is_empty() {
            break;
        }
        imports.retain(|module, _| !leaves.contains(module));
        for named in imports.values_mut() {
            named.retain(|name| !leaves.contains(name));
        }
    }
    assert!(
        imports.is_empty(),
        "modules that import each other in a circle, or import such a module: {imports:#?}"
    );
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
