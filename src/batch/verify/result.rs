//! Owns the numbers that `verify` prints: their names, their order, what each of them counts.

use serde::Serialize;

use crate::batch::verify::days::DayDifferences;
use crate::batch::verify::elsewhere::ElsewhereRun;
use crate::batch::verify::tally::Kind;

/// What is printed. The numbers from `missing` to `unfounded` are failures, those after them stated exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyResult {
    /// Whether the promise holds.
    pub equal: bool,
    /// Whole rows in the export.
    pub rows: u64,
    /// Rows that the batch makes of the sources.
    pub earned: u64,
    /// Earned, and not in the export.
    pub missing: u64,
    /// More rows than lines that earn them.
    pub duplicate: u64,
    /// Rows of a category that is not accepted.
    pub forbidden: u64,
    /// Lines of the export that are not rows.
    pub unreadable: u64,
    /// Rows that differ from the row of their line without an explanation.
    pub altered: u64,
    /// Rows whose line is refused, although its sources did not change since.
    pub unexpected: u64,
    /// Whether the retraction ledger is damaged, lacks what was written to it, or is missing although a daemon wrote the
    /// export: 1 if it is.
    pub ledger: u64,
    /// Rows that are effective although a later line of their run overrules them or an order is on the run.
    pub unretracted: u64,
    /// Rows that the ledger has out although neither a line nor an order overrules them.
    pub unfounded: u64,
    /// Rows of evidence that was replaced by a later line of the same file.
    pub superseded: u64,
    /// Rows that differ from the row of their line, whose sources changed since.
    pub rewritten: u64,
    /// Rows in the bytes of the previous exporter.
    pub other_dialect: u64,
    /// Rows that a later line of their run overrules, and rows whose own line is firewalled now.
    pub contradicted: u64,
    /// Of these, rows that a later line overrules: the ledger has them out, so they are no exception.
    #[serde(skip)]
    pub overruled: u64,
    /// Earned rows that a rebuild left out because later lines overrule them.
    pub left_out: u64,
    /// Rows whose line is refused now for another reason.
    pub refused_now: u64,
    /// Rows whose line does not exist any more.
    pub orphaned: u64,
    /// Rows not written yet, because their source does not end in a newline and was written a moment ago.
    pub pending: u64,
    /// Of the rewritten, contradicted and refused rows those of which it is not known whether they or their sources
    /// were changed after they were written: no state has hashes of the export.
    pub undetermined: u64,
    /// Keys whose sources changed too fast to be judged.
    pub inconclusive: u64,
    /// Bytes after the last newline of the export: a row being written, or torn.
    pub torn_bytes: u64,
    /// Directories and day-files that could not be read.
    pub skipped: u64,
    /// Rows that the ledger has out.
    pub retracted: u64,
    /// Of these, rows of runs with a standing order.
    pub ordered: u64,
    /// Runs with an effective row whose last line in another day's file is refused for its category.
    pub rejected_elsewhere: u64,
    /// Waiting runs whose evidence is in another day's file.
    pub accepted_elsewhere: u64,
    /// The first of these runs of each day.
    pub elsewhere: Vec<ElsewhereRun>,
    /// Refused and waiting runs that were not looked for in other day-files, because there are too many.
    pub elsewhere_unexamined: u64,
    /// Whether everything was read and judged, and all differences were counted. Without that, an equal export proves
    /// nothing.
    pub complete: bool,
    /// Differences of each day, excused ones included.
    pub days: Vec<DayDifferences>,
    /// Differences of further days, which are not listed.
    pub unlisted: u64,
}

impl VerifyResult {
    /// Returns whether the sources of some rows changed after these were written; they differ until a rebuild.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        let settled = [self.superseded, self.rewritten];
        let contradicted = self.contradicted.saturating_sub(self.overruled);
        let refused = [contradicted, self.refused_now, self.orphaned];
        settled.iter().chain(&refused).any(|count| *count > 0)
    }

    pub(super) fn count(&mut self, kind: Kind, number: u64) {
        *match kind {
            Kind::Forbidden => &mut self.forbidden,
            Kind::Unreadable => &mut self.unreadable,
            Kind::Missing => &mut self.missing,
            Kind::Duplicate => &mut self.duplicate,
            Kind::Altered => &mut self.altered,
            Kind::Unexpected => &mut self.unexpected,
            Kind::Ledger => &mut self.ledger,
            Kind::Unretracted => &mut self.unretracted,
            Kind::Unfounded => &mut self.unfounded,
            Kind::Superseded => &mut self.superseded,
            Kind::SourceChange => &mut self.rewritten,
            Kind::OtherDialect => &mut self.other_dialect,
            Kind::Contradicted => &mut self.contradicted,
            Kind::RefusedNow => &mut self.refused_now,
            Kind::Orphaned => &mut self.orphaned,
            Kind::Pending => &mut self.pending,
        } += number;
    }
}
