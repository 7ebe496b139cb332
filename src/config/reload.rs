//! The difference between two configurations: the changed keys, which of them a running daemon can apply, and the
//! resulting settings.

use crate::config::{KEYS, Key, Settings};

/// The difference between the running configuration and a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The settings in force after the change.
    pub settings: Settings,
    /// The changed keys whose new values are in force.
    pub applied: Vec<&'static str>,
    /// The changed keys whose new values need a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Settings {
    /// Returns the change from these settings to `fresh`.
    #[must_use]
    pub fn change_to(&self, fresh: Settings) -> Change {
        let differs = |key: &&Key| self.value_of(key.name) != fresh.value_of(key.name);
        let names = |needs_restart: bool| {
            let changed = KEYS.iter().filter(differs);
            changed
                .filter(|key| key.needs_restart == needs_restart)
                .map(|key| key.name)
                .collect()
        };
        let (applied, needs_restart) = (names(false), names(true));
        Change {
            settings: Settings {
                root: self.root.clone(),
                state_dir: self.state_dir.clone(),
                state_dir_explicit: self.state_dir_explicit,
                exclude: self.exclude.clone(),
                log_format: self.log_format,
                listen: self.listen.clone(),
                ..fresh
            },
            applied,
            needs_restart,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Kind};
    use super::*;
    use crate::cli::args::GlobalArguments;

    /// Returns an allowed value that is not the default.
    fn other_value(key: &Key, directory: &std::path::Path) -> String {
        match key.kind {
            Kind::Directory => directory.to_str().unwrap().to_owned(),
            Kind::Number { min, .. } => min.to_string(),
            Kind::Choice(names) => names().pop().unwrap(),
            Kind::Patterns => "tmp*".to_owned(),
            Kind::Filter => "trace".to_owned(),
            Kind::Address => "127.0.0.1:9743".to_owned(),
        }
    }

    #[test]
    fn each_changed_key_is_applied_or_listed() {
        let (lake, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let load = |variable: &str, value: &str| {
            let root = ("LH_DISTILL_ROOT", lake.path().to_str().unwrap());
            let environment = Environment::from_iter([root, (variable, value)]);
            Settings::load(&GlobalArguments::default(), &environment).unwrap()
        };
        let running = load("DISTILLD_STATE_DIR", "/a");
        for key in KEYS {
            let value = other_value(key, other.path());
            let mut fresh = load(key.variable, &value);
            if key.name != "state_dir" {
                fresh.state_dir = running.state_dir.clone();
                fresh.state_dir_explicit = true;
            }
            let change = running.change_to(fresh.clone());
            if key.needs_restart {
                assert_eq!(
                    (change.applied, change.needs_restart),
                    (vec![], vec![key.name])
                );
                assert_eq!(change.settings, running, "{}", key.name);
            } else {
                assert_eq!(
                    (change.applied, change.needs_restart),
                    (vec![key.name], vec![])
                );
                assert_eq!(change.settings, fresh, "{}", key.name);
            }
        }
    }

    #[test]
    fn equal_settings_change_nothing() {
        let settings = Settings::with_defaults("/lake");
        let change = settings.change_to(settings.clone());
        assert_eq!(change.settings, settings);
        assert!(change.applied.is_empty() && change.needs_restart.is_empty());
    }
}
