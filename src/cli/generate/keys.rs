//! Generates distilld.toml(5): every configuration key from the table that parses it, described by the comments of the
//! annotated file in `examples/`, which the tests compare with that table.

use std::io;

use crate::config::{KEYS, Key};
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::cli::generate::Page;
use crate::cli::generate::man::{MANUAL, set, source};

const ANNOTATED: &str = include_str!("../../../examples/distilld.toml");

/// Generates the page.
pub(super) fn page() -> io::Result<Page> {
    let mut roff = Roff::new();
    roff.control("TH", ["DISTILLD.TOML", "5", "", &source(), MANUAL]);
    set(&mut roff);
    roff.control("SH", ["NAME"]);
    roff.text([roman("distilld.toml - configuration of distilld")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([
        bold("distilld --config"),
        roman(" "),
        italic("FILE"),
        roman(" "),
        italic("COMMAND"),
    ]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "A TOML file of keys and values, read only where --config names it. For each key the first that speaks wins: \
         flag, environment variable, this file, default. A key that is not known, or a value that does not fit, is an \
         error with exit status 78, and nothing is started.",
    )]);
    roff.control("SH", ["KEYS"]);
    for key in KEYS {
        describe(&mut roff, key)?;
    }
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for line in [
        "root = \"/srv/lakehouse\"",
        "state_dir = \"/var/lib/distilld\"",
        "max_line_bytes = 33554432",
    ] {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("distilld"),
        roman("(1), "),
        bold("distilld-check"),
        roman("(1), "),
        bold("distilld-lake"),
        roman("(5)"),
    ]);
    let mut bytes = Vec::new();
    roff.to_writer(&mut bytes)?;
    Ok(Page {
        path: "man/distilld.toml.5".to_owned(),
        bytes,
    })
}

fn describe(roff: &mut Roff, key: &Key) -> io::Result<()> {
    let Some(meaning) = meaning(ANNOTATED, key.name) else {
        let what = format!("examples/distilld.toml does not describe `{}`", key.name);
        return Err(io::Error::other(what));
    };
    roff.control("TP", []);
    roff.text([bold(key.name)]);
    roff.text([roman(meaning)]);
    roff.control("IP", []);
    let mut line = vec![roman(format!("Value: {}.", key.kind))];
    if let Some(default) = key.default {
        line.extend([roman(" Default: "), bold(default), roman(".")]);
    }
    line.extend([roman(" Variable: "), bold(key.variable), roman(".")]);
    if let Some(flag) = key.flag {
        line.extend([roman(" Flag: "), bold(flag), roman(".")]);
    }
    roff.text(line);
    Ok(())
}

/// Returns the comment above a key of the annotated file up to "Also", from where the table has the details.
pub fn meaning(annotated: &str, key: &str) -> Option<String> {
    let assigned = format!("#{key} = ");
    let block = annotated
        .split("\n\n")
        .find(|block| block.lines().any(|line| line.starts_with(&assigned)))?;
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
