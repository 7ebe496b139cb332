//! Waits for what is in the lake: a full scan finds it, then each pair that the scan queued is read, and as far as it was
//! then, and its rows are appended. What is written later does not prolong a wait.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::daemon::event_loop::EventLoop;
use crate::engine::EngineError;
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::pair::verdict::VerdictKind;
use crate::query::wait::WaitReport;

/// The maximum number of waits; the oldest is dropped, and begins again if its client asks again.
const WAITS_MAX: usize = 64;

/// A wait. Its client asks repeatedly by the same id.
#[derive(Debug)]
pub(super) struct PendingWait {
    id: String,
    stage: Stage,
    /// The question that is not answered yet.
    reply: Option<oneshot::Sender<WaitReport>>,
}

/// The progress of a wait.
#[derive(Debug)]
enum Stage {
    /// Until the full scan with this number has ended.
    Scanning(u64),
    /// Until these pairs are read as far as these lengths of their day-files' contents, bytes.
    Reading(BTreeMap<PairPath, [u64; 2]>),
    Done(WaitReport),
}

impl EventLoop {
    /// Begins a wait, or takes another question of one that has begun.
    pub(super) fn wait(&mut self, id: String, reply: oneshot::Sender<WaitReport>) {
        if let Some(wait) = self.waits.iter_mut().find(|wait| wait.id == id) {
            wait.reply = Some(reply);
            return;
        }
        if self.waits.len() == WAITS_MAX {
            self.waits.remove(0);
        }
        // A scan that runs already may have been where the change is.
        self.full_scan_at_ms = self.shared.clock.monotonic_ms();
        self.waits.push(PendingWait {
            id,
            stage: Stage::Scanning(self.full_scans + 1),
            reply: Some(reply),
        });
    }

    /// Advances the waits, and answers those that are over. A fault that stops reading ends all.
    pub(super) fn answer_waits(&mut self) -> Result<(), EngineError> {
        let is_stopped = self.faults.last().is_some_and(|fault| !fault.resolved);
        let mut waits = std::mem::take(&mut self.waits);
        for wait in &mut waits {
            if is_stopped && !matches!(wait.stage, Stage::Done(_)) {
                wait.stage = Stage::Done(self.wait_report());
            }
            self.advance(&mut wait.stage)?;
            if let Stage::Done(report) = &wait.stage
                && let Some(reply) = wait.reply.take()
                && let Err(_gone) = reply.send(report.clone())
            {
                // The client asks again, unless it has ended.
                tracing::debug!(wait.id, "the answer to a wait was not taken");
            }
        }
        self.waits = waits;
        Ok(())
    }

    fn advance(&mut self, stage: &mut Stage) -> Result<(), EngineError> {
        if let Stage::Scanning(scan) = stage
            && self.has_scanned(*scan)
        {
            let pairs = self.unread_lengths()?;
            self.engine.await_reads(pairs.keys());
            *stage = Stage::Reading(pairs);
        }
        if let Stage::Reading(pairs) = stage {
            let mut unread = BTreeMap::new();
            for (path, lengths) in std::mem::take(pairs) {
                if !self.is_read_to(&path, lengths)? {
                    unread.insert(path, lengths);
                }
            }
            *stage = match unread.is_empty() && self.engine.all_appended() {
                true => Stage::Done(self.wait_report()),
                false => Stage::Reading(unread),
            };
        }
        Ok(())
    }

    /// Returns the pairs that are queued or may settle, with the lengths of what their day-files hold. A room that is reserved
    /// at the end of one may be written into for as long as a scorer works.
    fn unread_lengths(&mut self) -> Result<BTreeMap<PairPath, [u64; 2]>, EngineError> {
        let mut lengths = BTreeMap::new();
        for path in self.engine.unsettled_pairs() {
            let known = self.engine.known_checkpoint(&path)?;
            let of_stream = Stream::ALL.map(|stream| {
                let offset = (known.as_ref()).map_or(0, |known| known.source(stream).offset);
                let source = Source::open(&*self.storage, &self.root, stream, &path);
                let source = source.ok().flatten();
                source.map_or(0, |source| {
                    source.content_end(offset).unwrap_or(source.len_bytes())
                })
            });
            lengths.insert(path, of_stream);
        }
        Ok(lengths)
    }

    /// Returns whether a pair is read as far as these lengths, or has nothing left to read. The length alone does not show it:
    /// a day-file that was rewritten or comes back had been read as far before.
    fn is_read_to(&mut self, path: &PairPath, lengths: [u64; 2]) -> Result<bool, EngineError> {
        if !self.engine.is_unsettled(path) {
            return Ok(true);
        }
        if self.engine.awaits_read(path) {
            return Ok(false);
        }
        let Some(checkpoint) = self.engine.known_checkpoint(path)? else {
            return Ok(false);
        };
        let streams = Stream::ALL.into_iter().zip(lengths);
        Ok(streams
            .into_iter()
            .all(|(stream, length)| checkpoint.source(stream).offset >= length))
    }

    fn wait_report(&self) -> WaitReport {
        WaitReport {
            done: true,
            health: self.live_status().health,
            rows: self.engine.export_rows(),
            waiting: self.engine.totals().counts[VerdictKind::Waiting],
        }
    }
}
