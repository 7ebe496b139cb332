//! The sources of the settings in force: the file that was read, and where the value of each key was given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::config::{ConfigError, Fragment, KEYS, Origin, Settings};

/// The environment variable of systemd that can set the state directory.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// Where the settings come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
    /// The location of each value that was given.
    origins: BTreeMap<&'static str, Origin>,
}

/// A key with its value in force and the source of the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The value; a number, a text, a list of texts, or null for a root that is not set.
    pub value: Value,
    /// The source of the value.
    pub origin: Origin,
}

impl Setting {
    /// Returns the value as it is written in the environment.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            Value::Array(list) => {
                let list: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                list.join(":")
            }
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }
}

impl Sources {
    pub(super) fn new(file: Option<PathBuf>, merged: &Fragment, settings: &Settings) -> Self {
        let origins = merged.iter();
        let mut origins: BTreeMap<_, _> = origins
            .map(|(name, (_, origin))| (*name, origin.clone()))
            .collect();
        if settings.state_dir_explicit {
            let service = Origin::Variable(STATE_DIRECTORY);
            origins.entry("state_dir").or_insert(service);
        }
        Self { file, origins }
    }

    /// Returns whether systemd gave the state directory.
    #[must_use]
    pub fn state_dir_is_of_service(&self) -> bool {
        self.origin("state_dir") == Origin::Variable(STATE_DIRECTORY)
    }

    /// Returns the location of a key's value.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Returns all keys with their values and sources, in the order of the annotated file.
    #[must_use]
    pub fn list(&self, settings: &Settings) -> Vec<Setting> {
        let setting = |key: &'static str| Setting {
            key,
            value: value(settings, key),
            origin: self.origin(key),
        };
        KEYS.iter().map(|key| setting(key.name)).collect()
    }
}

impl Settings {
    /// Checks that the root is an existing directory.
    ///
    /// # Errors
    /// An error that names where the root was given.
    pub fn check_root(&self, sources: &Sources) -> Result<(), ConfigError> {
        let (origin, root) = (sources.origin("root"), self.root.clone());
        if origin == Origin::Default {
            return Err(ConfigError::RootMissing);
        }
        if root.as_os_str().is_empty() {
            return Err(ConfigError::RootEmpty { origin });
        }
        match std::fs::metadata(&root) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(ConfigError::RootNoDirectory { origin, root }),
            Err(source) => Err(ConfigError::RootOutOfReach {
                origin,
                root,
                source,
            }),
        }
    }
}

fn value(settings: &Settings, key: &str) -> Value {
    match key {
        "root" if settings.root.as_os_str().is_empty() => Value::Null,
        "root" => json!(settings.root.to_string_lossy()),
        "state_dir" => json!(settings.state_dir.to_string_lossy()),
        "exclude" => json!(settings.exclude.patterns()),
        "listen" => json!(
            settings
                .listen
                .as_ref()
                .map_or("none".to_owned(), ToString::to_string)
        ),
        key => {
            let text = settings.value_of(key);
            text.parse::<u64>()
                .map_or_else(|_| json!(text), |number| json!(number))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, GlobalArguments};
    use super::*;

    #[test]
    fn each_key_has_its_value_and_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("d.toml");
        let text = "# a comment\nroot = \".\"\nsettle_ms = 7\nexclude = [\"a\", \"b\"]\n";
        std::fs::write(&file, text).unwrap();
        let flags = GlobalArguments {
            config: Some(file.clone()),
            log: Some("debug".to_owned()),
            ..GlobalArguments::default()
        };
        let environment =
            Environment::from_iter([("DISTILLD_POLL_MS", "20"), ("STATE_DIRECTORY", "/state")]);
        let (settings, sources) = Settings::load_with_sources(&flags, &environment).unwrap();
        let listed = sources.list(&settings);
        let shown = |key| {
            let setting = listed.iter().find(|setting| setting.key == key).unwrap();
            (setting.text(), setting.origin.to_string())
        };
        let at = |line: usize| format!("{}:{line}", file.display());
        assert_eq!(shown("settle_ms"), ("7".to_owned(), at(3)));
        assert_eq!(shown("exclude"), ("a:b".to_owned(), at(4)));
        assert_eq!(
            shown("poll_ms"),
            ("20".to_owned(), "DISTILLD_POLL_MS".to_owned())
        );
        assert_eq!(shown("log"), ("debug".to_owned(), "--log".to_owned()));
        assert_eq!(
            shown("state_dir"),
            ("/state".to_owned(), "STATE_DIRECTORY".to_owned())
        );
        assert_eq!(shown("listen"), ("none".to_owned(), "default".to_owned()));
        assert_eq!(listed.len(), KEYS.len());
    }
}
