//! The process that a status is from.

use serde::{Deserialize, Serialize};

use crate::platform::host::{host_name, unit_instance};
use crate::record::timestamp::stamp;

/// The names and the start of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// The name of its host.
    pub host: String,
    /// The instance of its unit `distilld@INSTANCE.service`; `None` outside of such a unit.
    pub instance: Option<String>,
    /// The version of the program.
    pub version: String,
    /// The start of the process, RFC 3339.
    pub started_at: String,
}

impl ProcessStatus {
    /// Describes this process. `started_ms`: its start, milliseconds since 1970.
    #[must_use]
    pub fn of_this(started_ms: u64) -> Self {
        Self {
            host: host_name(),
            instance: unit_instance(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: stamp(started_ms),
        }
    }
}
