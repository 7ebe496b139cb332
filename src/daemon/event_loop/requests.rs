//! Owns the answers of the engine's thread, given between two passes, so that what is told is one moment of the lake.

use tokio::sync::oneshot;

use crate::daemon::event_loop::EventLoop;
use crate::daemon::requests::{EngineRequest, Snapshot};
use crate::engine::EngineError;
use crate::lake::path::{PairPath, Stream};
use crate::pair::history::Recent;
use crate::platform::clock::Clock as _;
use crate::query::dead_letters::RetryReport;
use crate::query::status::{ClassStatus, Status, UnreadPairs};
use crate::record::timestamp::stamp;

/// Unread pairs that a snapshot names, so that their bytes can be told.
const UNREAD_MAX: usize = 1_024;

/// A day-file that is being read again because somebody asked for it.
pub(super) struct PendingRetry {
    path: PairPath,
    stream: Stream,
    before: ClassStatus,
    reply: oneshot::Sender<RetryReport>,
}

impl EventLoop {
    /// All that was asked since the last pass.
    pub(super) fn answer(&mut self) -> Result<(), EngineError> {
        for question in self.shared.wake.take_questions() {
            // Who asked may have gone away meanwhile.
            match question {
                EngineRequest::Snapshot(reply) => drop(reply.send(self.snapshot())),
                EngineRequest::Recent(reply) => drop(reply.send(self.recent())),
                EngineRequest::Retry {
                    path,
                    stream,
                    reply,
                } => match self.engine.begin_retry(&path, stream) {
                    Ok(None) => drop(reply),
                    Ok(Some(before)) => self.retries.push(PendingRetry {
                        path,
                        stream,
                        before,
                        reply,
                    }),
                    Err(error) if error.is_transient() => self.pause(&error),
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Says what became of day-files that were read again, when all of them was.
    pub(super) fn answer_retries(&mut self) -> Result<(), EngineError> {
        for retrying in std::mem::take(&mut self.retries) {
            if self.engine.is_unread(&retrying.path) {
                self.retries.push(retrying);
                continue;
            }
            let PendingRetry {
                path,
                stream,
                before,
                reply,
            } = retrying;
            let retried = self.engine.end_retry(&path, stream, before)?;
            // Who asked may have gone away meanwhile.
            let _ = reply.send(retried);
        }
        Ok(())
    }

    fn recent(&self) -> Recent {
        let mut recent = self.engine.recent().clone();
        recent.advance(self.shared.clock.wall_ms());
        recent
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            status: Status {
                as_of: stamp(self.shared.clock.wall_ms()),
                ..self.live_status()
            },
            figures: self.engine.figures(),
            unread: UnreadPairs {
                pairs: self.engine.unread_pairs(UNREAD_MAX),
                is_complete: self.engine.behind() <= UNREAD_MAX
                    && self.scanning.is_empty()
                    && !self.watch.has_unarmed(),
            },
        }
    }
}
