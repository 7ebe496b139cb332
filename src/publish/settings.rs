//! The configuration file of the publisher.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cli::generate::keys::KeyEntry;
use crate::config::ListenAddress;
use crate::platform::host::host_name;
use crate::publish::error::PublishError;
use crate::publish::table::Location;

/// Longest name of a host: statistics of files may cut a longer one.
const HOST_LEN_MAX: usize = 32;

/// A key of the configuration file, for its manual page.
pub(super) struct Key {
    name: &'static str,
    kind: &'static str,
    default: Option<&'static str>,
}

/// All keys, in the order of the annotated file. The defaults are those of [`Fragment`].
pub(super) const KEYS: [Key; 7] = [
    Key::without_default("export", "an absolute path"),
    Key::without_default("table", "an absolute path, or s3://BUCKET/PREFIX"),
    Key::without_default("host", "a name of 1 to 32 characters"),
    Key::with_default(
        "commit_interval_s",
        "a number of seconds from 1 to 86400",
        "60",
    ),
    Key::with_default(
        "commit_bytes",
        "a number of bytes, or with KiB, MiB or GiB",
        "64MiB",
    ),
    Key::with_default("checkpoint_every", "a number of versions", "100"),
    Key::with_default("listen", "a listen address, or none", "none"),
];

impl Key {
    const fn without_default(name: &'static str, kind: &'static str) -> Key {
        Key {
            name,
            kind,
            default: None,
        }
    }

    const fn with_default(name: &'static str, kind: &'static str, default: &'static str) -> Key {
        Key {
            name,
            kind,
            default: Some(default),
        }
    }

    /// Returns the key as its manual page has it.
    pub(super) fn entry(&self) -> KeyEntry {
        KeyEntry {
            name: self.name,
            kind: self.kind.to_owned(),
            default: self.default,
            variable: None,
            flag: None,
        }
    }
}

/// What is published where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The export.
    pub export: PathBuf,
    /// The table.
    pub table: Location,
    /// The name of this host in the table.
    pub host: String,
    /// The longest time that a row waits for its commit.
    pub commit_interval: Duration,
    /// Bytes of the export in one commit, about.
    pub commit_bytes: u64,
    /// A checkpoint is written of each version that is a multiple of this; 0 for none.
    pub checkpoint_every: u64,
    /// Where metrics are served, if anywhere.
    pub listen: Option<ListenAddress>,
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fragment {
    export: PathBuf,
    table: String,
    host: Option<String>,
    #[serde(default = "default_interval_s")]
    commit_interval_s: u64,
    #[serde(default = "default_bytes")]
    commit_bytes: Bytes,
    #[serde(default = "default_checkpoint")]
    checkpoint_every: u64,
    #[serde(default = "default_listen")]
    listen: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Number(u64),
    Text(String),
}

fn default_interval_s() -> u64 {
    60
}

fn default_bytes() -> Bytes {
    Bytes::Text("64MiB".to_owned())
}

fn default_checkpoint() -> u64 {
    100
}

fn default_listen() -> String {
    "none".to_owned()
}

impl Bytes {
    fn number(&self) -> Option<u64> {
        let text = match self {
            Bytes::Number(number) => return Some(*number),
            Bytes::Text(text) => text.trim(),
        };
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let unit = units
            .iter()
            .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
        let (digits, unit) = unit.unwrap_or((text, 1));
        digits.trim().parse::<u64>().ok()?.checked_mul(unit)
    }
}

impl Settings {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// It cannot be read, or a value cannot be used; the message names the line.
    pub fn load(file: &Path) -> Result<Settings, PublishError> {
        let text = fs::read_to_string(file).map_err(|source| PublishError::NoConfig {
            path: file.to_owned(),
            source,
        })?;
        Settings::parse(&text).map_err(|(at_byte, why)| {
            let before = text.get(..at_byte).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            PublishError::Config(format!("{}:{line}: {why}", file.display()))
        })
    }

    /// Reads the text of a file. An error has its offset.
    fn parse(text: &str) -> Result<Settings, (usize, String)> {
        let fragment: Fragment = toml::from_str(text).map_err(|error| {
            let at_byte = error.span().map_or(0, |span| span.start);
            (at_byte, error.message().to_owned())
        })?;
        let bad = |key: &str, why: &str| (offset_of(text, key), format!("`{key}` must be {why}"));
        let host = fragment.host.unwrap_or_else(host_name);
        if !is_host(&host) {
            let why = format!(
                "of 1 to {HOST_LEN_MAX} letters, digits, dots, hyphens and underscores, but is {host:?}"
            );
            return Err(bad("host", &why));
        }
        if !fragment.export.is_absolute() {
            return Err(bad("export", "an absolute path"));
        }
        let bytes = fragment.commit_bytes.number();
        let bytes = bytes.filter(|bytes| (1 << 10..=1 << 30).contains(bytes));
        if !(1..=86_400).contains(&fragment.commit_interval_s) {
            return Err(bad("commit_interval_s", "from 1 to 86400"));
        }
        Ok(Settings {
            export: fragment.export,
            table: Location::parse(&fragment.table).ok_or_else(|| {
                bad(
                    "table",
                    "the absolute path of a directory or `s3://BUCKET/PREFIX`",
                )
            })?,
            host,
            commit_interval: Duration::from_secs(fragment.commit_interval_s),
            commit_bytes: bytes.ok_or_else(|| bad("commit_bytes", "from \"1KiB\" to \"1GiB\""))?,
            checkpoint_every: fragment.checkpoint_every,
            listen: ListenAddress::parse(&fragment.listen)
                .map_err(|why| bad("listen", &format!("an address of this host: {why}")))?,
        })
    }
}

fn is_host(host: &str) -> bool {
    let is_usable = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=HOST_LEN_MAX).contains(&host.len()) && host.bytes().all(is_usable)
}

/// Returns the offset of the line of a key.
fn offset_of(text: &str, key: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let rest = line.trim_start().strip_prefix(key);
        if rest.is_some_and(|rest| rest.trim_start().starts_with('=')) {
            return at;
        }
        at += line.len();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMUM: &str = "export = \"/e.jsonl\"\ntable = \"/lake/sft\"\n";

    #[test]
    fn the_defaults_are_those_documented() {
        let settings = Settings::parse(&format!("{MINIMUM}host = \"lake-07\"\n")).unwrap();
        let expected = Settings {
            export: "/e.jsonl".into(),
            table: Location::Directory("/lake/sft".into()),
            host: "lake-07".to_owned(),
            commit_interval: Duration::from_secs(60),
            commit_bytes: 64 << 20,
            checkpoint_every: 100,
            listen: None,
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn the_keys_are_those_of_the_annotated_file() {
        let annotated = include_str!("../../examples/lakehouse/publish.toml");
        let mut values = Vec::new();
        for line in annotated.lines() {
            let line = line.strip_prefix('#').unwrap_or(line);
            values.extend(line.split_once(" = ").filter(|(key, _)| !key.contains(' ')));
        }
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, KEYS.map(|key| key.name));
        for (key, (_, value)) in KEYS.iter().zip(&values) {
            let value = value.trim_matches('"');
            assert!(
                key.default.is_none_or(|default| default == value),
                "{}",
                key.name
            );
        }
        // Each key is known, and has its default where the file has it commented out.
        let all = values
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"));
        let all = Settings::parse(&all.collect::<String>()).unwrap();
        let as_it_is = Settings::parse(annotated).unwrap();
        let host = all.host.clone();
        assert_eq!(all, Settings { host, ..as_it_is });
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("publish.toml");
        for (line, why) in [
            ("hots = \"a\"", "unknown field `hots`"),
            ("host = \"a/b\"", "`host` must be"),
            ("host = \"\"", "`host` must be"),
            ("commit_interval_s = 0", "`commit_interval_s` must be"),
            ("commit_bytes = \"64MB\"", "`commit_bytes` must be"),
            ("commit_bytes = 5", "`commit_bytes` must be"),
            ("listen = \"0.0.0.0:1\"", "`listen` must be"),
            ("checkpoint_every = \"x\"", "invalid type"),
        ] {
            fs::write(&file, format!("{MINIMUM}{line}\n")).unwrap();
            let error = Settings::load(&file).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("publish.toml:3: "), "{text}");
            assert!(text.contains(why) && error.exit_code() == 78, "{text}");
        }
        let relative = MINIMUM.replace("/lake", "lake");
        assert_eq!(
            Settings::parse(&relative).unwrap_err().0,
            MINIMUM.find("table").unwrap()
        );
    }
}
