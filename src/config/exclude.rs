//! Patterns of day-files that are not read, such as the temporary files of a writer. Pure.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use toml::de::{DeArray, DeValue};

use crate::config::value::describe;

/// The separator of patterns in an environment variable.
const SEPARATOR: char = ':';

/// Day-files that are not read. A pattern with a slash is compared with `YYYY/MM/DD/NAME.jsonl`, any other with the name.
#[derive(Debug, Clone, Default)]
pub struct Exclude {
    patterns: Vec<String>,
    names: GlobSet,
    paths: GlobSet,
}

/// Compares the patterns; the sets follow from them.
impl PartialEq for Exclude {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Exclude {}

impl Exclude {
    /// Compiles patterns.
    ///
    /// # Errors
    /// The first pattern that is none, and why.
    pub fn new(patterns: Vec<String>) -> Result<Self, String> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in &patterns {
            let fault = |error: globset::Error| format!("{pattern:?}: {}", error.kind());
            if pattern.is_empty() {
                return Err("an empty pattern".to_owned());
            }
            let mut glob = GlobBuilder::new(pattern);
            let glob = glob.literal_separator(true).build().map_err(fault)?;
            let set = if pattern.contains('/') {
                &mut paths
            } else {
                &mut names
            };
            set.add(glob);
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|error| error.to_string());
        Ok(Self {
            names: build(names)?,
            paths: build(paths)?,
            patterns,
        })
    }

    /// Splits the value of an environment variable into patterns.
    pub(super) fn split(text: &str) -> Vec<String> {
        let patterns = text.split(SEPARATOR).filter(|pattern| !pattern.is_empty());
        patterns.map(str::to_owned).collect()
    }

    /// Returns the patterns of a TOML list.
    pub(super) fn listed(list: &DeArray<'_>) -> Result<Vec<String>, String> {
        let patterns = list.iter().map(|pattern| match pattern.get_ref() {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            other => Err(format!("a list with {}", describe(other))),
        });
        patterns.collect()
    }

    /// Returns the patterns as they were given.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Returns whether the day-file with a path relative to its stream is not read.
    #[must_use]
    pub fn matches(&self, day_file: &Path) -> bool {
        let name = day_file.file_name().unwrap_or_default();
        !self.patterns.is_empty() && (self.names.is_match(name) || self.paths.is_match(day_file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_with_a_slash_is_compared_with_the_path() {
        let exclude = |patterns: &[&str]| {
            let patterns = patterns.iter().map(|pattern| (*pattern).to_owned());
            Exclude::new(patterns.collect()).unwrap()
        };
        let all = exclude(&["tmp*", ".*", "*.tmp.jsonl", "2026/*/01/{a,b}.jsonl"]);
        for (path, is_excluded) in [
            ("2026/05/02/tmp1.jsonl", true),
            ("2026/05/02/.x.jsonl", true),
            ("2026/05/02/a.tmp.jsonl", true),
            ("2026/05/01/a.jsonl", true),
            ("2026/05/02/a.jsonl", false),
            ("tmp/05/02/a.jsonl", false),
            (".d/05/02/atmp.jsonl", false),
        ] {
            assert_eq!(all.matches(path.as_ref()), is_excluded, "{path}");
            assert!(!Exclude::default().matches(path.as_ref()));
        }
        assert!(exclude(&["**/01/*"]).matches("2026/05/01/a.jsonl".as_ref()));
        for (wrong, why) in [("[", "\"[\": "), ("", "an empty pattern")] {
            let error = Exclude::new(vec![wrong.to_owned()]).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
        assert_eq!(Exclude::split("tmp*::.*"), ["tmp*", ".*"]);
    }
}
