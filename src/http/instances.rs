//! The list of the host's instances, for the start of the page. Each instance is asked by a thread of its own: the disk
//! of another lake may hang, and neither this server nor the answers of the other instances wait for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::{CONFIG_DIR, instances_in};
use crate::http::handlers::HttpResponse;
use crate::http::response::{json, text};
use crate::http::status_cache::StatusCache;
use crate::platform::background::spawn;
use crate::query::instances::{HealthDocument, ListedInstance, ask};

/// The route of the list.
pub(super) const ROUTE: &str = "/instances.json";
/// Maximum time until the list is complete; the request of the page is patient for longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum number of threads that ask at once. A thread whose disk hangs remains one of them.
pub(super) const ASKING_MAX: usize = 8;

#[derive(Serialize)]
struct Instances {
    instances: Vec<ListedInstance>,
}

/// What the questions of one list have in common.
#[derive(Clone)]
struct Questions {
    own_root: PathBuf,
    asking: Arc<Semaphore>,
    deadline: Instant,
}

/// Returns the instances whose configuration is in the directory of the packaged host.
pub(super) async fn listed(cache: &StatusCache) -> HttpResponse {
    let directory = Path::new(CONFIG_DIR);
    let names = match instances_in(directory) {
        Ok(names) => names,
        Err(error) => {
            let why = format!("cannot list {CONFIG_DIR}: {error}");
            return text(StatusCode::INTERNAL_SERVER_ERROR, &why);
        }
    };
    let questions = Questions {
        own_root: cache.answering().root.clone(),
        asking: Arc::clone(cache.asking()),
        deadline: Instant::now() + PATIENCE,
    };
    let mut asked = JoinSet::new();
    for name in names {
        asked.spawn(questions.clone().ask(directory, name));
    }
    let (asked, own) = tokio::join!(asked.join_all(), own(cache));
    let listed = asked.into_iter().map(|(name, answer)| {
        answer.unwrap_or_else(|| ListedInstance {
            own: true,
            ..ListedInstance::known(directory, name, own.clone())
        })
    });
    let mut instances: Vec<_> = listed.collect();
    instances.sort_by(|a, b| a.name.cmp(&b.name));
    json(&Instances { instances })
}

/// Returns what this daemon answers about itself.
pub(super) async fn own(cache: &StatusCache) -> HealthDocument {
    HealthDocument {
        health: cache.engine().await.health(),
        pages: cache.pages(),
    }
}

impl Questions {
    /// Asks one instance; the answer is `None` for the one that asks.
    async fn ask(self, directory: &'static Path, name: String) -> (String, Option<ListedInstance>) {
        let unknown = |why: &str| ListedInstance::unknown(directory, name.clone(), why.to_owned());
        let Ok(Ok(permit)) =
            timeout_at(self.deadline, Arc::clone(&self.asking).acquire_owned()).await
        else {
            let why =
                "not asked: earlier questions to the instances of this host have no answer yet";
            return (name.clone(), Some(unknown(why)));
        };
        let (reply, answered) = oneshot::channel();
        let (asked, own_root) = (name.clone(), self.own_root);
        let thread = spawn("instance", move || {
            // The receiver is gone if the answer is too late.
            let _ = reply.send(ask(directory, asked, &own_root));
            drop(permit);
        });
        if let Err(error) = thread {
            return (name.clone(), Some(unknown(&error.to_string())));
        }
        let answer = match timeout_at(self.deadline, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Some(unknown("no answer in time: its disk may hang")),
        };
        (name, answer)
    }
}
