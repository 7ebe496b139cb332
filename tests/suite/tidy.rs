//! Rules that no compiler checks: `record` and `pair` are pure, imports point to lower layers, every file describes
//! itself and is short, and comments and texts are plain English.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::prose::prose_of;

/// Folders in which every file is pure: it cannot fail for a reason outside its arguments.
const PURE_FOLDERS: [&str; 2] = ["record", "pair"];

/// Pure files of the other folders.
const PURE_FILES: [&str; 22] = [
    "batch/verify/compare",
    "batch/verify/days",
    "cli/args/flags",
    "cli/args/help",
    "cli/args/mod",
    "cli/args/queries",
    "cli/args/rfc3339",
    "cli/check/unit",
    "config/keys",
    "console/table",
    "daemon/status_line",
    "dataset/shape",
    "dataset/version",
    "lake/chunk",
    "lake/path",
    "publish/columns",
    "publish/table/schema",
    "query/explain/suggest",
    "recovery/decide",
    "store/export/mark",
    "store/export/segments",
    "store/state/blocks",
];

/// Names that a pure file does not use.
const IMPURE: [&str; 12] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::time",
    "std::process",
    "tokio",
    "Instant::",
    "SystemTime",
    "crate::platform",
    "rustix",
    "fastrand",
];

/// Maximum number of product lines in a file.
const PRODUCT_LINES_MAX: usize = 400;

/// Words and phrases that comments and texts do not use: each has a plain term of the field.
const IDIOMS: [&str; 36] = [
    "again and again",
    "anew",
    "asked for by",
    "at a time when",
    "behind",
    "beside",
    "besides",
    "by then",
    "for ever",
    "goes on",
    "lie",
    "lies",
    "look at",
    "looked at",
    "looks at",
    "nobody",
    "now and then",
    "of those",
    "passed over",
    "said",
    "say",
    "says",
    "so many",
    "somebody",
    "stand",
    "stands",
    "stood",
    "tell",
    "tells",
    "told",
    "went on",
    "what came of",
    "what stands",
    "whatever",
    "who asks",
    "whoever",
];

/// Folders with Rust files of this project.
const FOLDERS: [&str; 5] = ["src", "tests", "examples", "benches", "fuzz/fuzz_targets"];

/// Texts of the models of generated lakes, which are data.
const LAKE_DATA: [&str; 10] = [
    "what a model said",
    "what c said",
    "what c never said",
    "what {} said",
    "a said",
    "A said",
    "the reviewer of phase 12 said",
    "every writer behind it",
    "said <this>",
    "The log says",
];

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
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

/// Returns the files below a folder of `src/` with their text, by path relative to `src/`.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    rust_files(&src().join(folder), &mut files);
    let sources = files.into_iter().map(|file| {
        let relative = file.strip_prefix(src()).unwrap().display().to_string();
        (relative, fs::read_to_string(&file).unwrap())
    });
    sources.collect()
}

/// Returns the text of a file before its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn pure_files_name_no_io_clock_or_thread() {
    let mut files: Vec<(String, String)> = PURE_FOLDERS.into_iter().flat_map(sources).collect();
    assert!(files.len() > 20, "only {} files found", files.len());
    for name in PURE_FILES {
        let path = src().join(name).with_extension("rs");
        let text = fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        files.push((format!("{name}.rs"), text));
    }
    for (file, text) in files {
        for impure in IMPURE {
            assert!(
                !product(&text).contains(impure),
                "src/{file} names {impure}"
            );
        }
    }
}

#[test]
fn no_product_file_is_longer_than_its_limit() {
    let is_long = |(file, text): (String, String)| {
        let is_product = !file.ends_with("/tests.rs");
        let lines = product(&text).lines().count();
        (is_product && lines > PRODUCT_LINES_MAX).then(|| format!("src/{file}: {lines} lines"))
    };
    let long: Vec<String> = sources("").into_iter().filter_map(is_long).collect();
    assert!(long.is_empty(), "over {PRODUCT_LINES_MAX} lines: {long:#?}");
}

/// Files that write to stdout or stderr, each with the reason; all others write through `console::output`, which escapes.
const WRITERS: [(&str, &str); 8] = [
    ("console/output.rs", "escapes what it writes"),
    ("console/progress.rs", "bars with fixed labels"),
    (
        "cli/render/live_status.rs",
        "escapes the page, and moves the cursor",
    ),
    ("cli/export.rs", "the rows of `export --output -`"),
    ("cli/dataset.rs", "the rows of `rows`"),
    ("cli/pair.rs", "the rows of `export --pair`"),
    ("cli/queries.rs", "the bytes of `dead-letters show --raw`"),
    (
        "cli/verify.rs",
        "the run IDs for `retract --from -`, escaped at a terminal",
    ),
];

#[test]
fn text_is_written_only_where_it_is_escaped() {
    let writes = |text: &str| {
        let is_used = |call: &str| text.contains(call) && !text.contains("fn print");
        let streams = ["stdout()", "stderr()"].iter().any(|stream| {
            let uses = text.match_indices(stream);
            uses.map(|(at, _)| &text[at + stream.len()..]).any(|rest| {
                let asks = [".is_terminal()", ")", ";\n    let mut polled"];
                !asks.iter().any(|ask| rest.starts_with(ask))
            })
        });
        streams || ["println!", "print!("].into_iter().any(is_used)
    };
    let unlisted = sources("").into_iter().filter_map(|(file, text)| {
        let is_listed = WRITERS.iter().any(|(writer, _)| *writer == file);
        (!is_listed && !file.ends_with("tests.rs") && writes(product(&text))).then_some(file)
    });
    let unlisted: Vec<String> = unlisted.collect();
    assert!(
        unlisted.is_empty(),
        "write through console::output: {unlisted:?}"
    );
}

/// Returns the idioms in a text, as whole words in any case, with any white space between the words of a phrase.
fn idioms_in(text: &str) -> Vec<&'static str> {
    let text = text.to_lowercase();
    let text = text.split_whitespace().collect::<Vec<&str>>().join(" ");
    let is_in = |idiom: &&str| {
        text.match_indices(*idiom).any(|(at, _)| {
            let is_edge = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
            let before = text[..at].chars().next_back();
            is_edge(before) && is_edge(text[at + idiom.len()..].chars().next())
        })
    };
    IDIOMS.into_iter().filter(|idiom| is_in(idiom)).collect()
}

#[test]
fn prose_is_comments_and_texts_without_code() {
    let rust = r##"/// Of `behind` and so
    /// many, 'tis
    fn f<'a>(behind: &'a str) { // Nobody's
        g('"', '\'', b'\\', "said", "it {told:>3}: {{stand}}\nsays it \"now\"", r#"a "lie" there"#);
        /* look
           at */
    }"##;
    let prose: Vec<(usize, Vec<&str>)> = prose_of(rust)
        .iter()
        .map(|prose| (prose.line, idioms_in(&prose.text)))
        .collect();
    let expected = [
        (1, vec!["so many"]),
        (3, vec!["nobody"]),
        (4, vec!["says"]),
        (4, vec!["lie"]),
        (5, vec!["look at"]),
    ];
    assert_eq!(prose, expected);
    assert!(idioms_in("ahead_behind, understand, Besides-").contains(&"besides"));
    assert!(idioms_in("ahead_behind understand lied").is_empty());
}

#[test]
fn comments_and_texts_use_plain_terms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in FOLDERS {
        rust_files(&root.join(dir), &mut files);
    }
    let mut idioms = Vec::new();
    for file in files {
        // This file lists the idioms.
        if file.ends_with("tests/suite/tidy.rs") {
            continue;
        }
        for mut prose in prose_of(&fs::read_to_string(&file).unwrap()) {
            for data in LAKE_DATA {
                prose.text = prose.text.replace(data, "");
            }
            let at = format!("{}:{}", file.display(), prose.line);
            let of_prose = idioms_in(&prose.text).into_iter();
            idioms.extend(of_prose.map(|idiom| format!("{at}: {idiom}")));
        }
    }
    assert!(idioms.is_empty(), "{} idioms: {idioms:#?}", idioms.len());
}

/// Returns the paths below `crate` that a text names, truncated to their first two segments (`store/journal`).
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

/// Returns the comma-separated members of a group whose opening brace is already consumed.
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
const LAYERS: [&[&str]; 13] = [
    &["platform", "record"],
    &["config"],
    &["console", "lake"],
    &["pair"],
    &["store"],
    &["engine", "batch"],
    &["dataset"],
    &["recovery"],
    &["query"],
    &["daemon"],
    &["http"],
    &["cli"],
    &["publish"],
];

fn layer_of(folder: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&folder))
}

/// Returns the text of a product file without its tests and comments.
fn product_code(text: &str) -> String {
    let code = product(text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<&str>>().join("\n")
}

#[test]
fn imports_point_only_to_lower_layers() {
    assert_eq!(
        named_paths("use crate::a::{B, c::D};\nuse crate::{e::{F, g::G}, h};"),
        ["a/B", "a/c", "e/F", "e/g", "h"].map(String::from).into()
    );
    let (mut imports, mut upward) = (0, Vec::new());
    for (file, text) in sources("") {
        let folder = file.split('/').next().unwrap_or_default();
        if ["lib.rs", "main.rs"].contains(&folder) {
            continue;
        }
        let own = layer_of(folder).unwrap_or_else(|| panic!("src/{folder} is in no layer"));
        for path in named_paths(&product_code(&text)) {
            let other = path.split('/').next().unwrap_or_default();
            if other == folder {
                continue;
            }
            imports += 1;
            if layer_of(other).is_none_or(|layer| layer >= own) {
                upward.push(format!("src/{file} imports crate::{path}"));
            }
        }
    }
    assert!(imports > 200, "only {imports} imports found");
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn every_file_describes_itself() {
    let mut files = Vec::new();
    for dir in FOLDERS {
        rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut files);
    }
    assert!(files.len() > 40, "only {} files found", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} does not start with a description",
            file.display()
        );
    }
}

/// An assertion that release builds omit does not protect them.
#[test]
fn no_product_file_has_debug_assertions() {
    for (file, text) in sources("") {
        assert!(
            !product(&text).contains("debug_assert"),
            "src/{file} has a debug_assert"
        );
    }
}
