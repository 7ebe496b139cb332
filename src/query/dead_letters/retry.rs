//! Reads a corrected day-file again, by the running daemon or by an engine under the lock. It is handled like a
//! rewritten day-file: existing rows are claimed, not written again.

use std::io;
use std::path::PathBuf;

use hyper::Method;
use rustix::io::Errno;

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
    /// See there.
    #[error(transparent)]
    Refused(#[from] RetryRefusal),
}

/// Why a day-file cannot be read again. Nothing is changed.
#[derive(Debug, thiserror::Error)]
pub enum RetryRefusal {
    /// Nothing was ever read of it.
    #[error("{0} was never read")]
    NeverRead(PairPath),
    /// It was read and cannot be read now: what was read of it would be lost until it can.
    #[error("cannot read {} now ({source}); what was read of it is kept", path.display())]
    Unreadable {
        /// The day-file.
        path: PathBuf,
        /// The error of the disk.
        source: io::Error,
    },
}

impl RetryRefusal {
    /// Returns the next step.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            RetryRefusal::NeverRead(_) => {
                "`distilld dead-letters` lists the day-files that have dead letters"
            }
            RetryRefusal::Unreadable { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => {
                    "restore the day-file, or mount its file system, then repeat the command"
                }
                _ => "make it readable, then repeat the command",
            },
        }
    }
}

/// How a second read began.
#[derive(Debug)]
pub enum RetryStart {
    /// The day-file is read again in the next passes. The account of its pair before.
    Begun(ClassStatus),
    /// Nothing was changed.
    Refused(RetryRefusal),
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
            let before = match engine.begin_retry(path, stream)? {
                RetryStart::Begun(before) => before,
                RetryStart::Refused(why) => return Err(why.into()),
            };
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
    /// Forgets what was read of a day-file and has it read again.
    ///
    /// # Errors
    /// Those of a rewritten source.
    pub fn begin_retry(
        &mut self,
        path: &PairPath,
        stream: Stream,
    ) -> Result<RetryStart, EngineError> {
        let Some(before) = self.class_status(path)? else {
            let why = RetryRefusal::NeverRead(path.clone());
            return Ok(RetryStart::Refused(why));
        };
        // A day-file that cannot be read now must not be reset: its lines would be lost until it can be read.
        let root = &self.ctx.root;
        let source = match Source::open(&*self.ctx.storage, root, stream, path) {
            Ok(Some(_)) => None,
            Ok(None) => Some(Errno::NOENT.into()),
            Err(error) => Some(error),
        };
        if let Some(source) = source {
            let path = path.path(root, stream);
            let why = RetryRefusal::Unreadable { path, source };
            return Ok(RetryStart::Refused(why));
        }
        self.reset_for_retry(path, stream)?;
        self.enqueue(path.clone());
        Ok(RetryStart::Begun(before))
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
