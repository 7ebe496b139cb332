//! Reads a corrected day-file again, by the running daemon or by an engine under the lock. It is handled like a
//! rewritten day-file: existing rows are claimed, not written again.

use hyper::Method;

use crate::config::Settings;
use crate::engine::{Engine, EngineError};
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::pair::accounting::class_of;
use crate::query::control::day_file_parameter;
use crate::query::dead_letters::RetryReport;
use crate::query::engine_setup::open_engine;
use crate::query::offline;
use crate::query::offline::{Backend, InquireError};
use crate::query::status::ClassStatus;
use crate::store::snapshot::stream_name;

/// Why a day-file was not read again.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// See there.
    #[error(transparent)]
    Inquire(#[from] InquireError),
    /// See there.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nothing was ever read of it.
    #[error("nothing was ever read of {0}")]
    Unknown(PairPath),
}

/// Reads a day-file again from its start and returns the change of its pair.
///
/// # Errors
/// See [`RetryError`].
pub fn retry(
    settings: &Settings,
    path: &PairPath,
    stream: Stream,
) -> Result<RetryReport, RetryError> {
    match offline::find(settings)? {
        Backend::Daemon(holder) => {
            let day_file = day_file_parameter(path);
            let stream = stream_name(stream);
            let asked = format!("/dead-letters/retry?{day_file}&stream={stream}");
            Ok(offline::of_daemon(
                &holder,
                Method::POST,
                &asked,
                offline::LONG,
            )?)
        }
        Backend::OfflineState(files) => {
            let (_lock, mut engine) = open_engine::<RetryError>(settings, *files)?;
            let before = engine.begin_retry(path, stream)?;
            let before = before.ok_or_else(|| RetryError::Unknown(path.clone()))?;
            while engine.is_unread(path) {
                engine.pass()?;
            }
            let retried = engine.end_retry(path, stream, before)?;
            engine.checkpoint()?;
            Ok(retried)
        }
    }
}

impl Engine {
    /// Forgets what was read of a day-file and has it read again; gives its pair's account before, or `None` where
    /// nothing was ever read of it or it cannot be read now.
    ///
    /// # Errors
    /// Those of a rewritten source.
    pub fn begin_retry(
        &mut self,
        path: &PairPath,
        stream: Stream,
    ) -> Result<Option<ClassStatus>, EngineError> {
        let Some(before) = self.class_status(path)? else {
            return Ok(None);
        };
        // A day-file that cannot be read now must not be reset: its lines would be lost until it can be read.
        let source = Source::open(&*self.ctx.storage, &self.ctx.root, stream, path);
        if !matches!(source, Ok(Some(_))) {
            return Ok(None);
        }
        self.reset_for_retry(path, stream)?;
        self.enqueue(path.clone());
        Ok(Some(before))
    }

    /// Returns the counts of a pair whose day-file was read again.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn end_retry(
        &mut self,
        path: &PairPath,
        stream: Stream,
        before: ClassStatus,
    ) -> Result<RetryReport, EngineError> {
        Ok(RetryReport {
            day_file: path.to_string(),
            stream: stream_name(stream).to_owned(),
            before,
            after: self.class_status(path)?.unwrap_or_default(),
        })
    }

    fn class_status(&mut self, path: &PairPath) -> Result<Option<ClassStatus>, EngineError> {
        let checkpoint = self.known_checkpoint(path)?;
        Ok(checkpoint.map(|checkpoint| {
            ClassStatus::new(&class_of(&checkpoint.path), &checkpoint.line_totals())
        }))
    }
}
