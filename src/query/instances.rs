//! The other instances of the host, as a daemon sees them from inside its unit. It reads their configuration files, and
//! asks their daemons through the control sockets; it opens none of their files and waits for none of their locks.
//! Clients of the page get the verdict of another lake and no more: its reason can name a file of that lake.

use std::io;
use std::path::Path;
use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::config::{Environment, GlobalArguments, Invocation, Settings, instance_file};
use crate::platform::root_lock::{is_held, last_holder};
use crate::platform::storage::{OsStorage, Storage as _};
use crate::query::control::ControlError;
use crate::query::health::{Health, HealthReport};
use crate::query::offline::{self, InquireError};

/// The route of [`HealthDocument`].
pub const HEALTH_ROUTE: &str = "/health.json";
/// Maximum wait for the answer of a daemon, which has it in memory.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a daemon answers about itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HealthDocument {
    /// The health verdict.
    pub health: HealthReport,
    /// The addresses of its page: `ADDRESS:PORT` or `unix:PATH`.
    #[serde(default)]
    pub pages: Vec<String>,
}

/// An instance, for the list of a page.
#[derive(Debug, Clone, Serialize)]
pub struct ListedInstance {
    /// The name, for `--instance`.
    pub name: String,
    /// Whether it is the instance that answers.
    pub own: bool,
    /// The verdict; `None` if it is not known.
    pub verdict: Option<Health>,
    /// The addresses of its page.
    pub pages: Vec<String>,
    /// The reason why the verdict is not known.
    pub error: Option<String>,
    /// The command that starts the daemon, or shows what is wrong.
    pub fix: Option<String>,
}

impl ListedInstance {
    /// An instance whose verdict is not known.
    #[must_use]
    pub fn unknown(directory: &Path, name: String, error: String) -> Self {
        let fix = completed(directory, &name, "as root, `distilld check` shows why");
        Self {
            name,
            own: false,
            verdict: None,
            pages: Vec::new(),
            error: Some(error),
            fix: Some(fix),
        }
    }

    /// An instance that answered.
    #[must_use]
    pub fn known(directory: &Path, name: String, answer: HealthDocument) -> Self {
        let stopped = answer.health.verdict == Health::NotRunning;
        let start = || completed(directory, &name, "`systemctl start distilld`");
        Self {
            fix: stopped.then(start),
            own: false,
            verdict: Some(answer.health.verdict),
            pages: answer.pages,
            error: None,
            name,
        }
    }
}

fn completed(directory: &Path, name: &str, fix: &str) -> String {
    let config = instance_file(directory, name);
    let environment = Environment::default();
    Invocation::of_arguments(&GlobalArguments::default(), &environment, Some(&config)).complete(fix)
}

/// Asks the daemon of an instance for its verdict; `None` if the instance is that of `own_root`. May wait for its disk.
#[must_use]
pub fn ask(directory: &Path, name: String, own_root: &Path) -> Option<ListedInstance> {
    let flags = GlobalArguments {
        config: Some(instance_file(directory, &name)),
        ..GlobalArguments::default()
    };
    let settings = match Settings::load(&flags, &Environment::default()) {
        Ok(settings) => settings,
        Err(error) => return Some(ListedInstance::unknown(directory, name, error.to_string())),
    };
    Some(match answer(&settings, own_root) {
        Ok(answer) => ListedInstance::known(directory, name, answer?),
        Err(InquireError::Denied(denied)) => {
            ListedInstance::unknown(directory, name, denied.briefly())
        }
        Err(error) => ListedInstance::unknown(directory, name, error.to_string()),
    })
}

fn answer(settings: &Settings, own_root: &Path) -> Result<Option<HealthDocument>, InquireError> {
    let root = OsStorage.canonicalize(&settings.root);
    let root = root.map_err(|source| {
        offline::denied_or(&settings.root, source, |source| InquireError::Root {
            root: settings.root.clone(),
            source,
        })
    })?;
    if root == own_root {
        return Ok(None);
    }
    let Some(holder) = last_holder(&root).map_err(offline::lock_error)? else {
        return Ok(Some(without_answer(Health::NotRunning)));
    };
    match offline::of_daemon(&holder, Method::GET, HEALTH_ROUTE, PATIENCE) {
        Err(error) if is_absent(&error) => Ok(Some(without_answer(of_lock(&root)))),
        answer => answer.map(Some),
    }
}

/// Returns whether no process listens on the control socket.
fn is_absent(error: &InquireError) -> bool {
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    match error {
        InquireError::Unresponsive {
            source: ControlError::Unreachable(error),
            ..
        } => absent.contains(&error.kind()),
        _ => false,
    }
}

/// A daemon without a control socket holds its lock and is starting, or it does not run.
fn of_lock(root: &Path) -> Health {
    match is_held(root) {
        true => Health::Starting,
        false => Health::NotRunning,
    }
}

fn without_answer(verdict: Health) -> HealthDocument {
    let health = HealthReport {
        verdict,
        ..HealthReport::default()
    };
    HealthDocument {
        health,
        ..HealthDocument::default()
    }
}
