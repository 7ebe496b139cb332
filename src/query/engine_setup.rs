//! The setup of an engine from the configuration.

use std::path::Path;
use std::sync::Arc;

use crate::config::Settings;
use crate::engine::{BATCH_BYTES, CLAIMS_HELD_MAX, Engine, EngineError, LedgerOrigin, Setup};
use crate::lake::chunk::LineLimits;
use crate::lake::path::{export_path, ledger_path};
use crate::platform::clock::{Clock, HostClock};
use crate::platform::root_lock::RootLock;
use crate::platform::storage::OsStorage;
use crate::query::offline::{InquireError, OfflineState};
use crate::store::export::SEGMENT_BYTES;

/// Maximum reader threads. More of them would only wait for the thread that commits.
const THREADS_MAX: usize = 4;

/// Returns the setup of an engine on the file system of the host, for a root with all links resolved.
#[must_use]
pub fn engine_setup(settings: &Settings, root: &Path, clock: Arc<dyn Clock>) -> Setup {
    Setup {
        storage: Arc::new(OsStorage),
        clock,
        root: root.to_owned(),
        state_dir: settings.state_dir.clone(),
        export_path: export_path(root),
        ledger_path: ledger_path(&export_path(root)),
        ledger_origin: LedgerOrigin::default(),
        exclude: settings.exclude.clone(),
        limits: LineLimits {
            line_bytes_max: settings.max_line_bytes,
        },
        settle_ms: u64::try_from(settings.settle.as_millis()).unwrap_or(u64::MAX),
        checkpoint_bytes: settings.checkpoint_bytes,
        batch_bytes: BATCH_BYTES,
        segment_bytes: SEGMENT_BYTES,
        claims_held_max: CLAIMS_HELD_MAX,
        long_lines: Arc::default(),
        threads: std::thread::available_parallelism()
            .map_or(1, |threads| threads.get().min(THREADS_MAX)),
    }
}

/// Opens an engine on the files of a daemon that is not running, for a command that changes them. The lock comes first, so
/// that it is released after the engine has closed the files.
///
/// # Errors
/// Another process took the lock, or the files cannot be recovered.
pub fn open_engine<E: From<InquireError> + From<EngineError>>(
    settings: &Settings,
    files: OfflineState,
) -> Result<(RootLock, Engine), E> {
    let (root, state_dir, lock) = files.into_lock()?;
    let settings = Settings {
        state_dir,
        ..settings.clone()
    };
    let setup = engine_setup(&settings, &root, Arc::new(HostClock::new()));
    let (engine, _report) = Engine::open(setup)?;
    Ok((lock, engine))
}
