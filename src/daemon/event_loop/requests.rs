//! Answers requests to the engine thread between two passes, so that each answer is one consistent moment of the lake.

use tokio::sync::oneshot;

use crate::daemon::event_loop::EventLoop;
use crate::daemon::requests::{EngineRequest, Snapshot};
use crate::engine::{EngineError, OrderError};
use crate::lake::path::{PairPath, Stream};
use crate::query::dead_letters::{RetryRefusal, RetryReport, RetryStart};
use crate::query::status::{ClassStatus, Status, UnreadPairs};
use crate::record::timestamp::stamp;

/// The maximum number of unread pairs whose bytes a snapshot lists.
const UNREAD_MAX: usize = 1_024;

/// A requested second read of a day-file that has not finished.
pub(super) struct PendingRetry {
    path: PairPath,
    stream: Stream,
    before: ClassStatus,
    reply: oneshot::Sender<Result<RetryReport, RetryRefusal>>,
}

impl EventLoop {
    /// Answers the requests that came since the last pass.
    pub(super) fn answer(&mut self) -> Result<(), EngineError> {
        for request in self.shared.inbox.take_requests() {
            // The caller may have gone.
            match request {
                EngineRequest::Snapshot(reply) => drop(reply.send(self.snapshot())),
                EngineRequest::Recent(reply) => drop(reply.send(self.engine.recent())),
                EngineRequest::ReopenState => {
                    let reopened = self.engine.reopen_state_if_failed();
                    self.pause_after(reopened)?;
                }
                EngineRequest::Retry {
                    path,
                    stream,
                    reply,
                } => match self.engine.begin_retry(&path, stream) {
                    Ok(RetryStart::Refused(why)) => drop(reply.send(Err(why))),
                    Ok(RetryStart::Begun(before)) => self.retries.push(PendingRetry {
                        path,
                        stream,
                        before,
                        reply,
                    }),
                    Err(error) => self.pause_after(Err(error))?,
                },
                EngineRequest::Wait { id, reply } => self.wait(id, reply),
                EngineRequest::Order(request, reply) => {
                    let result = self.engine.order(&request);
                    let answer = result.as_ref().map_err(ToString::to_string);
                    let _ = reply.send(answer.cloned());
                    if let Err(OrderError::Engine(error)) = result {
                        self.pause_after(Err(error))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Answers the retries whose day-files have been read completely.
    pub(super) fn answer_retries(&mut self) -> Result<(), EngineError> {
        for retry in std::mem::take(&mut self.retries) {
            if self.engine.is_unread(&retry.path) {
                self.retries.push(retry);
                continue;
            }
            let PendingRetry {
                path,
                stream,
                before,
                reply,
            } = retry;
            match self.engine.end_retry(&path, stream, before) {
                // The caller may have gone.
                Ok(retried) => drop(reply.send(Ok(retried))),
                Err(error) => self.pause_after(Err(error))?,
            }
        }
        Ok(())
    }

    /// Returns a snapshot of the status and of all pairs.
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            status: Status {
                as_of: stamp(self.shared.clock.wall_ms()),
                ..self.live_status()
            },
            state: self.engine.state_snapshot(),
            unread: UnreadPairs {
                pairs: self.engine.unread_pairs(UNREAD_MAX),
                is_complete: self.engine.queue_len() <= UNREAD_MAX
                    && self.scanning.is_empty()
                    && !self.watch.has_unarmed(),
            },
        }
    }
}
