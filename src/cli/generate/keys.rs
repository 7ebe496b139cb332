//! Generates the page of a configuration file, such as distilld.toml(5): every key from the table that parses it,
//! described by the comments of the annotated file in `examples/`, which the tests compare with that table.

use std::io;

use crate::config::{KEYS, Key};
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::cli::generate::Page;
use crate::cli::generate::man::{MANUAL, set, source, write_see_also};

const ANNOTATED: &str = include_str!("../../../examples/distilld.toml");

/// The page of a configuration file.
pub(crate) struct FilePage {
    /// The name of the page.
    pub name: &'static str,
    /// The program that reads the file.
    pub program: &'static str,
    /// The description.
    pub description: &'static str,
    /// The annotated file, whose comments describe the keys.
    pub annotated: &'static str,
    /// Lines of an example.
    pub example: &'static [&'static str],
    /// Other pages, by name and section.
    pub see_also: &'static [(&'static str, &'static str)],
}

/// A key as the page has it.
pub(crate) struct KeyEntry {
    /// The name in the file.
    pub name: &'static str,
    /// The kind of value.
    pub kind: String,
    /// The default.
    pub default: Option<&'static str>,
    /// The environment variable.
    pub variable: Option<&'static str>,
    /// The flag.
    pub flag: Option<&'static str>,
}

impl From<&Key> for KeyEntry {
    fn from(key: &Key) -> KeyEntry {
        KeyEntry {
            name: key.name,
            kind: key.kind.to_string(),
            default: key.default,
            variable: Some(key.variable),
            flag: key.flag,
        }
    }
}

/// Generates distilld.toml(5).
pub(super) fn page() -> io::Result<Page> {
    let file = FilePage {
        name: "distilld.toml",
        program: "distilld",
        description: "A TOML file of keys and values, read only where --config names it. For each key the first that speaks wins: \
                      flag, environment variable, this file, default. A key that is not known, or a value that does not fit, is an \
                      error with exit status 78, and nothing is started.",
        annotated: ANNOTATED,
        example: &[
            "root = \"/srv/lakehouse\"",
            "state_dir = \"/var/lib/distilld\"",
            "max_line_bytes = 33554432",
        ],
        see_also: &[
            ("distilld", "1"),
            ("distilld-check", "1"),
            ("distilld-lake", "5"),
        ],
    };
    file.page(KEYS.iter().map(KeyEntry::from))
}

impl FilePage {
    /// Generates the page with these keys.
    pub(crate) fn page(&self, keys: impl Iterator<Item = KeyEntry>) -> io::Result<Page> {
        let mut roff = Roff::new();
        roff.control(
            "TH",
            [&self.name.to_uppercase(), "5", "", &source(), MANUAL],
        );
        set(&mut roff);
        roff.control("SH", ["NAME"]);
        let Self { name, program, .. } = self;
        roff.text([roman(format!("{name} - configuration of {program}"))]);
        roff.control("SH", ["SYNOPSIS"]);
        roff.text([
            bold(format!("{program} --config")),
            roman(" "),
            italic("FILE"),
            roman(" "),
            italic("COMMAND"),
        ]);
        roff.control("SH", ["DESCRIPTION"]);
        roff.text([roman(self.description)]);
        roff.control("SH", ["KEYS"]);
        for key in keys {
            self.describe(&mut roff, &key)?;
        }
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in self.example {
            roff.text([roman(*line)]);
        }
        roff.control("fi", []);
        let others = self.see_also.iter();
        let others = others.map(|(name, section)| ((*name).to_owned(), *section));
        write_see_also(&mut roff, &others.collect::<Vec<_>>());
        let mut bytes = Vec::new();
        roff.to_writer(&mut bytes)?;
        Ok(Page {
            path: format!("man/{name}.5"),
            bytes,
        })
    }

    fn describe(&self, roff: &mut Roff, key: &KeyEntry) -> io::Result<()> {
        let Some(meaning) = meaning(self.annotated, key.name) else {
            let what = format!(
                "the annotated {} does not describe `{}`",
                self.name, key.name
            );
            return Err(io::Error::other(what));
        };
        roff.control("TP", []);
        roff.text([bold(key.name)]);
        roff.text([roman(meaning)]);
        roff.control("IP", []);
        let mut line = vec![roman(format!("Value: {}.", key.kind))];
        for (title, value) in [
            (" Default: ", key.default),
            (" Variable: ", key.variable),
            (" Flag: ", key.flag),
        ] {
            if let Some(value) = value {
                line.extend([roman(title), bold(value), roman(".")]);
            }
        }
        roff.text(line);
        Ok(())
    }
}

/// Returns the comment above a key of the annotated file up to "Also", from where the table has the details.
pub fn meaning(annotated: &str, key: &str) -> Option<String> {
    let assigned = format!("{key} = ");
    // A key with a default is commented out.
    let is_assigned = |line: &str| line.trim_start_matches('#').starts_with(&assigned);
    let block = annotated
        .split("\n\n")
        .find(|block| block.lines().any(is_assigned))?;
    let comment = block.lines().filter_map(|line| line.strip_prefix("# "));
    let comment = comment.collect::<Vec<_>>().join(" ");
    let mut sentences = Vec::new();
    for sentence in comment.split_inclusive(". ") {
        let bounds = sentence.trim_end().trim_end_matches('.');
        let is_bounds = bounds.split_once(" to ").is_some_and(|(least, most)| {
            [least, most]
                .iter()
                .all(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        if !sentence.starts_with("Also ") && !is_bounds {
            sentences.push(sentence.trim_end());
        }
    }
    (!sentences.is_empty()).then(|| sentences.join(" "))
}
