//! The configuration: fragments from flags, environment and file, merged in a fixed order, validated, and returned as
//! [`Settings`].
//!
//! The order of precedence for every key is: flag, environment variable, file, default; `locate` chooses the file. Each value is validated where
//! it was given, even if it is overridden, so that an error can name its flag, variable or line. Nothing is written
//! here, and the environment is passed in, never read from the process.

mod address;
mod error;
mod exclude;
mod filter;
mod flags;
mod invocation;
mod keys;
mod locate;
pub(crate) mod reload;
mod sources;
mod value;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use toml::de::DeTable;

pub use address::ListenAddress;
pub use error::{ConfigError, Origin};
pub use exclude::Exclude;
pub use filter::{BadDirective, parse_filter};
pub use flags::GlobalArguments;
pub use invocation::{Invocation, as_typed};
pub(crate) use keys::LINE_BYTES_MAX;
use keys::nearest;
pub use keys::{KEYS, Key, Kind};
pub use keys::{LogFormat, Watch};
pub use locate::{CONFIG_DIR, DEFAULT_INSTANCE, instance_file, instances_in, unit_of};
pub use reload::Change;
pub use sources::{Setting, Sources};
use value::Value;

/// The exit code for a configuration that an operator has to change: `EX_CONFIG` of sysexits. The unit prevents systemd
/// from restarting on it.
pub const EXIT_CODE: u8 = 78;

/// The complete, validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The directory that contains `data/`. It existed when the settings were read.
    pub root: PathBuf,
    /// The directory of the daemon's state. It may have to be created.
    pub state_dir: PathBuf,
    /// True if `state_dir` was configured; false if it is the default inside the root.
    pub state_dir_explicit: bool,
    /// The day-files that are not read.
    pub exclude: Exclude,
    /// The time for which a source must not have changed before its last line is read without a newline.
    pub settle: Duration,
    /// The maximum length of a line; a longer one becomes a dead letter.
    pub max_line_bytes: u64,
    /// The interval between scans of recently active directories, which find changes whose events were lost.
    pub recent_scan: Duration,
    /// The interval between scans of the whole lake, which find changes whose events were lost.
    pub full_scan: Duration,
    /// The polling interval on file systems without events.
    pub poll: Duration,
    /// The way in which the daemon detects changes.
    pub watch: Watch,
    /// The length of the journal that triggers a checkpoint.
    pub checkpoint_bytes: u64,
    /// The address for status and metrics, in addition to the control socket and the sockets that systemd passed.
    pub listen: Option<ListenAddress>,
    /// The maximum age of unread changes at which the export counts as fresh.
    pub fresh_objective: Duration,
    /// The log filter, which has been parsed once already.
    pub log: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// Environment variables `DISTILLD_..` with unknown names, probably misspelt; a warning is logged once the log has
    /// started.
    pub unused_variables: Vec<String>,
}

/// The environment as a value, so that nothing depends on that of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Reads the environment of this process.
    pub fn from_env() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// Returns the variable's value, which may be empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Returns the variable's value if it is not empty.
    pub fn get_non_empty(&self, name: &str) -> Option<&OsStr> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

/// The values of one source, for some of the keys.
type Fragment = BTreeMap<&'static str, (Value, Origin)>;

/// Returns the configuration file that these flags and this environment choose.
#[must_use]
pub fn config_file(flags: &GlobalArguments, environment: &Environment) -> Option<PathBuf> {
    locate::locate(flags, environment, Path::new(CONFIG_DIR))
}

impl Settings {
    /// Reads the configuration file if there is one, merges all sources and validates them.
    ///
    /// # Errors
    /// The first value that has to be changed. The root must be an existing directory.
    pub fn load(flags: &GlobalArguments, environment: &Environment) -> Result<Self, ConfigError> {
        let (settings, sources) = Self::load_with_sources(flags, environment)?;
        settings.check_root(&sources)?;
        Ok(settings)
    }

    /// Loads the settings without checking that the root exists, and returns where each value was given.
    ///
    /// # Errors
    /// The first value that has to be changed.
    pub fn load_with_sources(
        flags: &GlobalArguments,
        environment: &Environment,
    ) -> Result<(Self, Sources), ConfigError> {
        let file = config_file(flags, environment);
        let mut merged = match &file {
            Some(file) => fragment_from_file(file)?,
            None => Fragment::new(),
        };
        // Later fragments override earlier ones.
        merged.extend(fragment_from_environment(environment)?);
        merged.extend(fragment_from_flags(flags)?);
        let settings = Self::from_fragment(merged.clone(), environment);
        let sources = Sources::new(file, &merged, &settings);
        Ok((settings, sources))
    }

    /// Loads the settings again in a running daemon, which must not block on the other end of a FIFO.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_again(
        flags: &GlobalArguments,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        if let Some(file) = config_file(flags, environment)
            && std::fs::metadata(&file).is_ok_and(|metadata| !metadata.is_file())
        {
            return Err(ConfigError::FileUnreadable {
                file,
                source: std::io::Error::new(
                    std::io::ErrorKind::InvalidInput,
                    "not a regular file, cannot be read again",
                ),
            });
        }
        Self::load(flags, environment)
    }

    /// Returns all defaults, for a root that need not exist.
    pub fn with_defaults(root: impl Into<PathBuf>) -> Self {
        let root = (Value::Path(root.into()), Origin::Default);
        Self::from_fragment(Fragment::from([("root", root)]), &Environment::default())
    }

    fn from_fragment(mut merged: Fragment, environment: &Environment) -> Self {
        let mut take = |name| take(&mut merged, name);
        let root = take("root").map(Value::into_path).unwrap_or_default();
        let named = take("state_dir")
            .map(Value::into_path)
            .or_else(|| state_directory(environment));
        let mut number = |name| take(name).expect("each number has a default").number();
        let mut duration = |name| Duration::from_millis(number(name));
        let (settle, recent_scan) = (duration("settle_ms"), duration("recent_scan_ms"));
        let (full_scan, poll) = (duration("full_scan_ms"), duration("poll_ms"));
        let fresh_objective = duration("fresh_objective_ms");
        let (max_line_bytes, checkpoint_bytes) =
            (number("max_line_bytes"), number("checkpoint_bytes"));
        Self {
            state_dir_explicit: named.is_some(),
            state_dir: named.unwrap_or_else(|| root.join("data/distilled/.distilld")),
            root,
            exclude: take("exclude")
                .and_then(|value| Exclude::new(value.into_patterns()).ok())
                .unwrap_or_default(),
            settle,
            max_line_bytes,
            recent_scan,
            full_scan,
            poll,
            checkpoint_bytes,
            listen: take("listen")
                .and_then(|value| ListenAddress::parse(&value.into_text()).ok().flatten()),
            fresh_objective,
            watch: take("watch")
                .and_then(|value| value.choice())
                .unwrap_or_default(),
            log: take("log").map(Value::into_text).unwrap_or_default(),
            log_format: take("log_format")
                .and_then(|value| value.choice())
                .unwrap_or_default(),
            unused_variables: unused_variables(environment),
        }
    }

    /// Returns the value of a key as written in the environment, or the debug form of a path.
    pub(crate) fn value_of(&self, name: &str) -> String {
        match name {
            "root" => format!("{:?}", self.root),
            "state_dir" => format!("{:?}", self.state_dir),
            "exclude" => format!("{:?}", self.exclude.patterns()),
            "settle_ms" => self.settle.as_millis().to_string(),
            "max_line_bytes" => self.max_line_bytes.to_string(),
            "recent_scan_ms" => self.recent_scan.as_millis().to_string(),
            "full_scan_ms" => self.full_scan.as_millis().to_string(),
            "poll_ms" => self.poll.as_millis().to_string(),
            "watch" => word(&self.watch),
            "checkpoint_bytes" => self.checkpoint_bytes.to_string(),
            "listen" => format!("{:?}", self.listen),
            "fresh_objective_ms" => self.fresh_objective.as_millis().to_string(),
            "log" => self.log.clone(),
            "log_format" => word(&self.log_format),
            _ => unreachable!("each key has a field, and a test that changes it"),
        }
    }
}

fn word<T: ValueEnum>(choice: &T) -> String {
    let value = choice.to_possible_value();
    value.map_or(String::new(), |value| value.get_name().to_owned())
}

/// Returns the merged value of a key, or its default.
fn take(merged: &mut Fragment, name: &'static str) -> Option<Value> {
    let key = keys::find(name).expect("settings are made of known keys");
    let given = merged.remove(name).map(|(value, _)| value);
    given.or_else(|| {
        key.default.map(|text| {
            key.parse(text.as_ref())
                .expect("each default is a valid value")
        })
    })
}

fn fragment_from_flags(flags: &GlobalArguments) -> Result<Fragment, ConfigError> {
    let log_format = flags
        .log_format
        .and_then(|format| format.to_possible_value());
    let typed: [(&str, Option<&OsStr>); 5] = [
        ("root", flags.root.as_deref().map(Path::as_os_str)),
        ("state_dir", flags.state_dir.as_deref().map(Path::as_os_str)),
        (
            "log_format",
            log_format.as_ref().map(|value| value.get_name().as_ref()),
        ),
        ("log", flags.log.as_deref().map(OsStr::new)),
        ("listen", flags.listen.as_deref().map(OsStr::new)),
    ];
    let mut fragment = Fragment::new();
    for (name, text) in typed {
        let key = keys::find(name).expect("flags are named after keys");
        if let (Some(text), Some(flag)) = (text, key.flag) {
            fragment.insert(key.name, given(key, Origin::Flag(flag), key.parse(text))?);
        }
    }
    if let (Some(key), false) = (keys::find("exclude"), flags.exclude.is_empty()) {
        let patterns = key.patterns(flags.exclude.clone());
        let origin = Origin::Flag(key.flag.unwrap_or_default());
        fragment.insert(key.name, given(key, origin, patterns)?);
    }
    Ok(fragment)
}

fn fragment_from_environment(environment: &Environment) -> Result<Fragment, ConfigError> {
    let mut fragment = Fragment::new();
    for key in KEYS {
        let text = match key.kind {
            // Other programs read RUST_LOG too, and an empty value means "not set" to them.
            Kind::Filter => environment.get_non_empty(key.variable),
            _ => environment.get(key.variable),
        };
        if let Some(text) = text {
            fragment.insert(
                key.name,
                given(key, Origin::Variable(key.variable), key.parse(text))?,
            );
        }
    }
    Ok(fragment)
}

fn fragment_from_file(file: &Path) -> Result<Fragment, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|source| ConfigError::FileUnreadable {
        file: file.to_owned(),
        source,
    })?;
    fragment_from_toml(file, &text)
}

fn fragment_from_toml(file: &Path, text: &str) -> Result<Fragment, ConfigError> {
    let origin_at = |offset: usize| Origin::File {
        file: file.to_owned(),
        line: line_of(text, offset),
    };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: origin_at(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', "; "),
    })?;
    let mut lines: Vec<_> = table.into_inner().into_iter().collect();
    // The first error in the file is the one reported.
    lines.sort_by_key(|(name, _)| name.span().start);
    let mut fragment = Fragment::new();
    for (name, value) in lines {
        let origin = origin_at(name.span().start);
        let Some(key) = keys::find(name.get_ref()) else {
            let nearest = nearest(name.get_ref());
            return Err(ConfigError::UnknownKey {
                origin,
                key: name.into_inner().into_owned(),
                nearest,
            });
        };
        let (mut value, origin) = given(key, origin, key.parse_toml(value.get_ref()))?;
        value.resolve_path(file.parent());
        fragment.insert(key.name, (value, origin));
    }
    Ok(fragment)
}

/// Returns the line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
        + 1
}

fn given(
    key: &'static Key,
    origin: Origin,
    value: Result<Value, String>,
) -> Result<(Value, Origin), ConfigError> {
    match value {
        Ok(value) => Ok((value, origin)),
        Err(found) => Err(ConfigError::BadValue {
            origin,
            key: key.name,
            allowed: key.kind.to_string(),
            found,
        }),
    }
}

/// Returns the first directory that systemd created for `StateDirectory=`.
fn state_directory(environment: &Environment) -> Option<PathBuf> {
    let first = std::env::split_paths(environment.get("STATE_DIRECTORY")?).next();
    first.filter(|directory| !directory.as_os_str().is_empty())
}

fn unused_variables(environment: &Environment) -> Vec<String> {
    let names = environment.0.keys().filter_map(|name| name.to_str());
    names
        .filter(|name| {
            name.starts_with(keys::VARIABLE_PREFIX)
                && *name != locate::CONFIG_VARIABLE
                && KEYS.iter().all(|key| key.variable != *name)
        })
        .map(str::to_owned)
        .collect()
}
