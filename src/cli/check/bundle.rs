//! The report of `check --bundle`: versions, settings, findings, figures and the last events of the unit, as one JSON
//! document without a text, an id, a category or a file name of the lake. Each part keeps only what is known to have none:
//! numbers, and words of a fixed set.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::cli::check::{Finding, service};
use crate::cli::hints::UserError;
use crate::config::{Settings, Sources};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::storage::FILE_MODE_MAX;
use crate::query::control;
use crate::query::offline::{self, Backend};
use crate::query::status::status;
use crate::record::timestamp::stamp;

/// The number of events of the journal.
const EVENTS_MAX: &str = "200";
/// Maximum wait for the metrics.
const PATIENCE: Duration = Duration::from_secs(15);
/// What replaces a text.
const LEFT_OUT: &str = "left out";
/// Keys of the status whose values are times or words of distilld.
const STATUS_WORDS: [&str; 6] = [
    "verdict",
    "as_of",
    "at",
    "last_row_at",
    "last_overflow_at",
    "last_retraction_at",
];
/// Fields of the journal that have numbers or words of distilld.
const EVENT_FIELDS: [&str; 13] = [
    "__REALTIME_TIMESTAMP",
    "PRIORITY",
    "MESSAGE_ID",
    "LINES",
    "DAY_FILES",
    "ROWS",
    "SCORED_LINES",
    "EXPORTED",
    "FIREWALLED",
    "WAITING",
    "MALFORMED",
    "EXPORT_BYTES",
    "RETRY_MS",
];

/// A report that is being made.
#[derive(Debug)]
pub(crate) struct Bundle {
    path: PathBuf,
    file: File,
    journal: Value,
}

impl Bundle {
    /// Creates the file, and reads the journal: the checks give up the rights of root for both.
    ///
    /// # Errors
    /// The file exists, or cannot be created.
    pub(crate) fn create(
        path: &Path,
        settings: &Settings,
        config: Option<&Path>,
    ) -> Result<Self, UserError> {
        let mut options = File::options();
        let options = options.write(true).create_new(true).mode(FILE_MODE_MAX);
        let file = options.open(path).map_err(|error| UserError {
            what: format!("cannot create the report {}: {error}", path.display()),
            fix: "name a file that does not exist, in a directory that you may write".to_owned(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            journal: journal(settings, config),
        })
    }

    /// Writes the report.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(
        mut self,
        settings: &Settings,
        sources: &Sources,
        findings: &[Finding],
    ) -> io::Result<PathBuf> {
        let findings: Vec<_> = findings.iter().map(Finding::without_names).collect();
        let now_ms = HostClock::new().wall_ms();
        let status = status(settings, now_ms).ok();
        let status = status.and_then(|status| serde_json::to_value(status).ok());
        let report = json!({
            "made_at": stamp(now_ms),
            "versions": versions(),
            "config": config_of(settings, sources),
            "checks": findings,
            "status": status.map(|status| without_texts("", status)),
            "metrics": metrics(settings),
            "journal": self.journal,
        });
        self.file
            .write_all(format!("{report:#}\n").as_bytes())
            .map(|()| self.path)
    }
}

fn versions() -> Value {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    json!({
        "distilld": env!("CARGO_PKG_VERSION"),
        "architecture": std::env::consts::ARCH,
        "kernel": kernel.trim(),
        "os": os.map(|name| name.trim_matches('"')),
        "systemd": output_of("systemctl", &["--version"]).and_then(|text| text.lines().next().map(str::to_owned)),
    })
}

/// Returns the settings with their sources. Patterns can have names of day-files, so that only their number is given.
fn config_of(settings: &Settings, sources: &Sources) -> Value {
    let listed = sources.list(settings);
    let settings: Vec<Value> = listed
        .into_iter()
        .map(|setting| {
            let value = match setting.value {
                Value::Array(patterns) => json!(patterns.len()),
                value => value,
            };
            json!({
                "key": setting.key,
                "value": value,
                "source": setting.origin.to_string(),
            })
        })
        .collect();
    json!({ "file": sources.file, "settings": settings })
}

/// Returns the value of a key of the status without texts, except times and words of distilld.
fn without_texts(key: &str, value: Value) -> Value {
    match value {
        Value::String(text) => {
            let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
            let is_time = |c: char| c.is_ascii_digit() || "-:.TZ".contains(c);
            let is_known = STATUS_WORDS.contains(&key)
                && (text.chars().all(is_time) || (key == "verdict" && text.chars().all(is_word)));
            json!(if is_known { &text } else { LEFT_OUT })
        }
        Value::Array(list) => list
            .into_iter()
            .map(|value| without_texts(key, value))
            .collect(),
        Value::Object(object) => {
            let fields = object.into_iter();
            let fields = fields.map(|(key, value)| {
                let value = without_texts(&key, value);
                (key, value)
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        number => number,
    }
}

/// Returns the metrics of a running daemon without those by source class, which are named after day-files.
fn metrics(settings: &Settings) -> Option<Vec<String>> {
    let Ok(Backend::Daemon(holder)) = offline::find(settings) else {
        return None;
    };
    let answer = control::ask(
        &holder.state_dir,
        Method::GET,
        "/metrics",
        Vec::new(),
        PATIENCE,
    )
    .ok()?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let is_plain = |line: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.+-=,:{}\" ".contains(c);
        line.starts_with("distilld_") && !line.contains("class=") && line.chars().all(allowed)
    };
    Some(text.lines().filter(is_plain).map(str::to_owned).collect())
}

/// Returns the last events of the unit: when, how severe, of which kind, and with which figures.
fn journal(settings: &Settings, config: Option<&Path>) -> Value {
    let Some(unit) = service::find(settings, config) else {
        return Value::Null;
    };
    let arguments = [
        "--no-pager",
        "--quiet",
        "--output=json",
        "--lines",
        EVENTS_MAX,
        "--unit",
        &unit.name,
    ];
    let text = output_of("journalctl", &arguments).unwrap_or_default();
    let events = text.lines().filter_map(|line| {
        let event: Map<String, Value> = serde_json::from_str(line).ok()?;
        let known = event
            .into_iter()
            .filter(|(field, value)| is_known(field, value));
        Some(Value::Object(known.collect()))
    });
    events.collect()
}

/// Returns whether a field of an event has no text of the lake.
fn is_known(field: &str, value: &Value) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    match field {
        "TARGET" => {
            let is_module = |c: char| c.is_ascii_lowercase() || "_:".contains(c);
            text.starts_with("distilld") && text.chars().all(is_module)
        }
        _ => EVENT_FIELDS.contains(&field) && text.chars().all(|c| c.is_ascii_hexdigit()),
    }
}

fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
