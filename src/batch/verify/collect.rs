//! Reads the scored lines of the keys in a slice, a pair on any thread and in parts.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::batch::overruled::Overruled;
use crate::batch::pair::{
    BatchVerdict, JudgedLine, LakeReader, PairReadError, PairReading, PairTotals, read_pair,
};
use crate::batch::verify::compare::LineFact;
use crate::batch::verify::rows::Slice;
use crate::lake::path::PairPath;
use crate::record::keys::LocalRowKey;
use crate::record::row::made_parts;

/// A scored line of a key: its key, the line, and the digest of its row if it has one in the slice.
pub(super) type CollectedLine = (LocalRowKey, LineFact, Option<u128>);

/// The lines of a part of a pair that are in a slice.
pub(super) struct CollectedLines {
    pub(super) lines: Vec<CollectedLine>,
    /// In the last part of the pair its totals or its error, and the lines that later ones overrule.
    pub(super) end: Option<(Result<PairTotals, PairReadError>, HashSet<u64>)>,
}

/// Lines of a part of a pair.
const LINES_AT_ONCE: usize = 256;

/// Reads the lines of a slice on any thread.
pub(super) struct LineCollector<'a> {
    pub(super) lake: &'a LakeReader<'a>,
    pub(super) reading: &'a PairReading<'a>,
    pub(super) slice: Slice<'a>,
    /// Whether the lines that later ones overrule are found too.
    pub(super) with_overruled: bool,
}

impl LineCollector<'_> {
    /// Reads a pair and passes its lines to `send`, until that returns false.
    pub(super) fn collect(
        &self,
        pair: &Arc<PairPath>,
        send: &mut dyn FnMut(CollectedLines) -> bool,
    ) {
        let name = pair.file_name();
        let (mut overruled, mut lines) = (Overruled::default(), Vec::new());
        let read = read_pair(self.lake, pair, self.reading, &mut |line| {
            if self.with_overruled {
                overruled.add(line);
            }
            lines.extend(self.line_in_slice(pair, &name, line));
            if lines.len() < LINES_AT_ONCE {
                return ControlFlow::Continue(());
            }
            let lines = std::mem::take(&mut lines);
            match send(CollectedLines { lines, end: None }) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        let end = Some((read, overruled.lines));
        send(CollectedLines { lines, end });
    }

    fn line_in_slice(
        &self,
        pair: &Arc<PairPath>,
        name: &str,
        line: &JudgedLine<'_>,
    ) -> Option<CollectedLine> {
        let key = LocalRowKey::from_scored(name, line.run?);
        if !self.slice.has_key(key) {
            return None;
        }
        let digest = row_digest(line).filter(|digest| self.slice.has_digest(*digest));
        Some((key, line_fact(pair, line), digest))
    }
}

/// Returns the digest of both parts of the line's row, if it has one.
fn row_digest(line: &JudgedLine<'_>) -> Option<u128> {
    let digest = || {
        made_parts(line.row)
            .expect("our own rows have parts")
            .whole()
    };
    (line.verdict == BatchVerdict::Exported).then(digest)
}

fn line_fact(pair: &Arc<PairPath>, line: &JudgedLine<'_>) -> LineFact {
    LineFact {
        pair: Arc::clone(pair),
        span: line.span,
        index: line.index.unwrap_or_default(),
        verdict: line.verdict.kind(),
        is_dispensable: false,
    }
}
