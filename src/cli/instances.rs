//! `distilld instances`: every lake that this host has a configuration or a unit for, with its health verdict.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::Serialize;

use crate::cli::args::InstancesArguments;
use crate::cli::hints::remedy;
use crate::cli::{AnyError, queries};
use crate::config::{
    CONFIG_DIR, DEFAULT_INSTANCE, Environment, GlobalArguments, Invocation, Settings,
    instance_file, instances_in, unit_of,
};
use crate::console::output;
use crate::console::table::{plain_table, trim_table};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::escape::Printable;
use crate::query::health::{Health, HealthReport};
use crate::query::status::status;

/// Present while systemd is the service manager of the host.
const BOOTED: &str = "/run/systemd/system";

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// The name, for `--instance`.
    pub name: String,
    /// The configuration file.
    pub config: PathBuf,
    /// The root; `None` if the configuration is invalid.
    pub root: Option<PathBuf>,
    /// The unit.
    pub unit: String,
    /// The state of the unit as systemd names it; `None` without systemd.
    pub unit_state: Option<String>,
    /// The health; `None` if it is not known.
    pub health: Option<HealthReport>,
    /// The reason why the health is not known.
    pub error: Option<String>,
}

/// Prints the instances of the host. The exit code is that of the worst verdict.
pub(super) fn instances(arguments: &InstancesArguments) -> Result<ExitCode, AnyError> {
    let listed = list(Path::new(CONFIG_DIR), &unit_states());
    if arguments.json {
        output::show_json(&listed)?;
    } else {
        output::show(&table(&listed))?;
    }
    let codes = listed.iter().map(|instance| match &instance.health {
        Some(health) => queries::exit_code(health.verdict),
        None => super::FAILED,
    });
    // A failure outweighs what passes by itself.
    let worst = codes.max_by_key(|code| [0, 3, 1].iter().position(|known| known == code));
    Ok(ExitCode::from(worst.unwrap_or_default()))
}

/// Returns the instances whose configuration is in a directory, or whose unit is known, by name.
#[must_use]
pub fn list(directory: &Path, unit_states: &BTreeMap<String, String>) -> Vec<Instance> {
    let mut names = instances_in(directory).unwrap_or_default();
    names.extend(unit_states.keys().filter_map(|unit| name_of(unit)));
    names.sort();
    names.dedup();
    let instance = |name: String| instance(directory, name, unit_states);
    names.into_iter().map(instance).collect()
}

fn instance(directory: &Path, name: String, unit_states: &BTreeMap<String, String>) -> Instance {
    let config = instance_file(directory, &name);
    let unit = unit_of(&name);
    let flags = GlobalArguments {
        config: Some(config.clone()),
        ..GlobalArguments::default()
    };
    // The environment of this command is not that of the units.
    let environment = Environment::default();
    let invocation = Invocation::of_arguments(&flags, &environment, Some(&config));
    let mut instance = Instance {
        unit_state: unit_states.get(&unit).cloned(),
        root: None,
        health: None,
        error: None,
        name,
        config,
        unit,
    };
    match Settings::load(&flags, &environment) {
        Ok(settings) => {
            instance.root = Some(settings.root.clone());
            match status(&settings, HostClock::new().wall_ms()) {
                Ok(status) => instance.health = Some(completed(status.health, &invocation)),
                Err(error) => instance.fail(&error, &invocation),
            }
        }
        Err(error) => instance.fail(&error, &invocation),
    }
    instance
}

fn completed(health: HealthReport, invocation: &Invocation) -> HealthReport {
    HealthReport {
        fix: health.fix.map(|fix| invocation.complete(&fix)),
        ..health
    }
}

impl Instance {
    fn fail(&mut self, error: &(dyn std::error::Error + 'static), invocation: &Invocation) {
        let fix = remedy(error).map_or(String::new(), |fix| format!("; {fix}"));
        self.error = Some(invocation.complete(&format!("{error}{fix}")));
    }

    /// Returns whether its verdict needs an action, or is not known.
    fn needs_action(&self) -> bool {
        let verdict = self.health.as_ref().map(|health| health.verdict);
        !verdict.is_some_and(Health::is_ready)
    }
}

fn table(listed: &[Instance]) -> String {
    if listed.is_empty() {
        return format!("no instance: {CONFIG_DIR} has no NAME.toml\n");
    }
    let mut table = plain_table();
    table.set_header(["instance", "verdict", "unit", "root"]);
    for instance in listed {
        let verdict = instance.health.as_ref();
        let root = instance.root.as_ref();
        table.add_row([
            instance.name.clone(),
            verdict.map_or("unknown".to_owned(), |health| health.verdict.title()),
            instance.unit_state.clone().unwrap_or_default(),
            root.map_or(String::new(), |root| {
                Printable(&root.to_string_lossy()).to_string()
            }),
        ]);
    }
    let mut text = trim_table(&table);
    for instance in listed.iter().filter(|instance| instance.needs_action()) {
        let why = match (&instance.health, &instance.error) {
            (Some(health), _) => {
                let fix = health.fix.as_ref();
                format!(
                    "{}{}",
                    health.reason,
                    fix.map_or(String::new(), |fix| format!("; {fix}"))
                )
            }
            (None, error) => error.clone().unwrap_or_default(),
        };
        text += &format!("{}: {}\n", instance.name, Printable(&why));
    }
    text
}

/// Returns the name of the instance of a unit.
fn name_of(unit: &str) -> Option<String> {
    match unit {
        "distilld.service" => Some(DEFAULT_INSTANCE.to_owned()),
        unit => {
            let name = unit.strip_prefix("distilld@")?.strip_suffix(".service")?;
            Some(name.to_owned()).filter(|name| !name.is_empty())
        }
    }
}

/// Returns the loaded units of distilld with their states.
fn unit_states() -> BTreeMap<String, String> {
    if !Path::new(BOOTED).is_dir() {
        return BTreeMap::new();
    }
    let listed = Command::new("systemctl")
        .args([
            "list-units",
            "--all",
            "--plain",
            "--no-legend",
            "--no-pager",
        ])
        .args(["distilld.service", "distilld@*.service"])
        .env("LC_ALL", "C.UTF-8")
        .output();
    let text = listed.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    let lines = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(((*words.first()?).to_owned(), (*words.get(2)?).to_owned()))
    });
    lines.collect()
}
