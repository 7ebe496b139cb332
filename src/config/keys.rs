//! The table of configuration keys: names, defaults and allowed values.
//!
//! Files, flags and precedence belong to the parent module; `value` parses a value. The annotated file in `examples/` is tested against this
//! table.

use std::fmt;

use clap::ValueEnum;

/// The prefix of most environment variables.
pub(super) const VARIABLE_PREFIX: &str = "DISTILLD_";

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The name in the file.
    pub name: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The flag, if there is one.
    pub flag: Option<&'static str>,
    /// The kind of value.
    pub kind: Kind,
    /// The default, written as in the environment; `None` if it depends on something else.
    pub default: Option<&'static str>,
    /// True if a change needs a restart, because the resource that depends on the key is opened once.
    pub needs_restart: bool,
}

/// The kind of value of a key.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A path. A path in the file is relative to the file's directory.
    Directory,
    /// A whole number within inclusive bounds.
    Number {
        /// The unit of the number.
        unit: &'static str,
        /// The minimum.
        min: u64,
        /// The maximum.
        max: u64,
    },
    /// A list of patterns of day-files.
    Patterns,
    /// One of several words.
    Choice(fn() -> Vec<String>),
    /// A filter of log events.
    Filter,
    /// A listen address, or `none`.
    Address,
}

const HOUR_MS: u64 = 3_600_000;
const WEEK_MS: u64 = 7 * 24 * HOUR_MS;
const KIB: u64 = 1024;
const GIB: u64 = 1024 * 1024 * KIB;
/// The largest `max_line_bytes`. The row of two such lines fits into a frame of the journal; the engine asserts it.
pub(crate) const LINE_BYTES_MAX: u64 = GIB / 8;

/// All keys, in the order of the annotated file.
pub const KEYS: &[Key] = &[
    Key {
        name: "root",
        variable: "LH_DISTILL_ROOT",
        flag: Some("--root"),
        kind: Kind::Directory,
        default: None,
        needs_restart: true,
    },
    Key {
        name: "state_dir",
        variable: "DISTILLD_STATE_DIR",
        flag: Some("--state-dir"),
        kind: Kind::Directory,
        default: None,
        needs_restart: true,
    },
    Key {
        name: "exclude",
        variable: "DISTILLD_EXCLUDE",
        flag: Some("--exclude"),
        kind: Kind::Patterns,
        default: Some(""),
        needs_restart: true,
    },
    number(
        "settle_ms",
        "DISTILLD_SETTLE_MS",
        "5000",
        milliseconds(1, HOUR_MS),
    ),
    number(
        "max_line_bytes",
        "DISTILLD_MAX_LINE_BYTES",
        "16777216",
        bytes(KIB, LINE_BYTES_MAX),
    ),
    number(
        "recent_scan_ms",
        "DISTILLD_RECENT_SCAN_MS",
        "30000",
        milliseconds(10, HOUR_MS),
    ),
    number(
        "full_scan_ms",
        "DISTILLD_FULL_SCAN_MS",
        "3600000",
        milliseconds(100, WEEK_MS),
    ),
    number(
        "poll_ms",
        "DISTILLD_POLL_MS",
        "1000",
        milliseconds(10, HOUR_MS),
    ),
    Key {
        name: "watch",
        variable: "DISTILLD_WATCH",
        flag: None,
        kind: Kind::Choice(names::<Watch>),
        default: Some("auto"),
        needs_restart: false,
    },
    number(
        "checkpoint_bytes",
        "DISTILLD_CHECKPOINT_BYTES",
        "33554432",
        bytes(4 * KIB, GIB),
    ),
    Key {
        name: "listen",
        variable: "DISTILLD_LISTEN",
        flag: Some("--listen"),
        kind: Kind::Address,
        default: Some("none"),
        needs_restart: true,
    },
    number(
        "fresh_objective_ms",
        "DISTILLD_FRESH_OBJECTIVE_MS",
        "60000",
        milliseconds(10, WEEK_MS),
    ),
    Key {
        name: "log",
        variable: "RUST_LOG",
        flag: Some("--log"),
        kind: Kind::Filter,
        default: Some("info"),
        needs_restart: false,
    },
    Key {
        name: "log_format",
        variable: "DISTILLD_LOG_FORMAT",
        flag: Some("--log-format"),
        kind: Kind::Choice(names::<LogFormat>),
        default: Some("auto"),
        needs_restart: true,
    },
];

const fn number(
    name: &'static str,
    variable: &'static str,
    default: &'static str,
    kind: Kind,
) -> Key {
    Key {
        name,
        variable,
        flag: None,
        kind,
        default: Some(default),
        needs_restart: false,
    }
}

const fn milliseconds(min: u64, max: u64) -> Kind {
    Kind::Number {
        unit: "milliseconds",
        min,
        max,
    }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Number {
        unit: "bytes",
        min,
        max,
    }
}

fn names<T: ValueEnum>() -> Vec<String> {
    let values = T::value_variants().iter().filter_map(T::to_possible_value);
    values.map(|value| value.get_name().to_owned()).collect()
}

/// Returns the key with a name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Returns the known name that is most similar to `name`, if one is similar.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // Flags and variables write the same names with dashes and capitals.
    let name = name.to_ascii_lowercase().replace('-', "_");
    let likeness = |key: &Key| strsim::jaro_winkler(&name, key.name);
    let best = KEYS
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.8).then_some(best.name)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("the path of a directory"),
            Self::Number { unit, min, max } => {
                write!(f, "a whole number of {unit} from {min} to {max}")
            }
            Self::Patterns => f.write_str("a list of patterns such as [\"tmp*\"]"),
            Self::Choice(names) => write!(f, "one of {}", names().join(", ")),
            Self::Filter => {
                f.write_str("a log filter such as \"info\" or \"warn,distilld::lake::source=debug\"")
            }
            Self::Address => f.write_str(
                "none, a loopback address with a port such as 127.0.0.1:9743 or [::1]:9743, or unix:/PATH",
            ),
        }
    }
}

/// The way in which the daemon detects changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Watch {
    /// Events if the file system provides them, otherwise polling.
    #[default]
    Auto,
    /// Events, even if the file system is not known to provide them.
    Events,
    /// Polling only.
    Poll,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `human` on a terminal, the journal's own fields in the journal, `kv` elsewhere.
    #[default]
    Auto,
    /// Short lines for people.
    Human,
    /// One line of key=value per event.
    Kv,
    /// One JSON object per event.
    Json,
}
