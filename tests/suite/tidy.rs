//! Rules that no compiler checks: the pure core names no I/O, clock or thread; no module stands on
//! one that stands on it; every file says what it owns.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that cannot fail for a reason outside their arguments.
const PURE: [&str; 26] = [
    "account",
    "blocks",
    "checkpoint",
    "firewall",
    "export/known",
    "export/segments",
    "json",
    "json_plain",
    "json_text",
    "pair",
    "pair/claims",
    "pair/line",
    "pair/step",
    "parse",
    "recent",
    "recover",
    "row",
    "stamp",
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

/// The modules of this crate that a text names, in paths that begin with `crate`.
fn named_modules(text: &str) -> BTreeSet<String> {
    let word = |text: &str| {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let text = text.trim_start();
        text[..text.find(|c| !is_word(c)).unwrap_or(text.len())].to_owned()
    };
    let mut named = BTreeSet::new();
    for path in text.split("crate::").skip(1) {
        let Some(group) = path.strip_prefix('{') else {
            named.insert(word(path));
            continue;
        };
        let mut depth = 0;
        let mut starts_here = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => starts_here = true,
                c if c.is_whitespace() => {}
                _ if starts_here => {
                    named.insert(word(&group[at..]));
                    starts_here = false;
                }
                _ => {}
            }
        }
    }
    named
}

/// What each module of the crate, its files below included, names of the others.
fn module_imports() -> BTreeMap<String, BTreeSet<String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let is_of_tests = file.file_name().is_some_and(|name| name == "tests.rs");
        let first = file.strip_prefix(&src).unwrap().components().next();
        let module = Path::new(first.unwrap().as_os_str()).with_extension("");
        let module = module.display().to_string();
        if is_of_tests || ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = product
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code: Vec<&str> = code.collect();
        let named = named_modules(&code.join("\n"));
        imports.entry(module).or_default().extend(named);
    }
    let modules: BTreeSet<String> = imports.keys().cloned().collect();
    for (module, named) in &mut imports {
        named.retain(|name| name != module && modules.contains(name));
    }
    imports
}

#[test]
fn no_module_stands_on_one_that_stands_on_it() {
    assert_eq!(
        named_modules("use crate::a::{B, c::D};\nuse crate::{e::{F, G}, h};"),
        ["a", "e", "h"].map(String::from).into()
    );
    let mut imports = module_imports();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 200);
    loop {
        let ground = imports.iter().filter(|(_, named)| named.is_empty());
        let ground: Vec<String> = ground.map(|(module, _)| module.clone()).collect();
        if ground.is_empty() {
            break;
        }
        imports.retain(|module, _| !ground.contains(module));
        for named in imports.values_mut() {
            named.retain(|name| !ground.contains(name));
        }
    }
    assert!(
        imports.is_empty(),
        "modules that import each other in a circle, or stand on such: {imports:#?}"
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
