//! Makes the two parts of rows apart: the frame from a scored line, the sample from evidence. A constant record takes the
//! place of the other.

use crate::batch::verify::fact::half;
use crate::record::firewall::{Admission, admit};
use crate::record::json::escape::Dialect;
use crate::record::parse::{self, Evidence, ScoredRun};
use crate::record::row::{SampleFinder, parts};
use crate::record::synthesize::{RowPlace, Synthesis, synthesize};

/// Makes parts of rows and counts them.
#[derive(Debug, Default)]
pub(super) struct PartsMaker {
    row: Vec<u8>,
    /// Finds the samples of rows that the constant line makes.
    finder: Option<SampleFinder>,
    /// Number of rows made.
    pub made: u64,
}

impl PartsMaker {
    /// Returns half the digest of the frame that a line makes with any evidence; `None` if the firewall refuses it.
    pub(super) fn frame(
        &mut self,
        run: &ScoredRun<'_>,
        day_file_name: &[u8],
        index: u64,
        dialect: Dialect,
    ) -> Option<u64> {
        let evidence = parse::evidence(br#"{"model_role":"executor","text":"."}"#).ok()?;
        let place = RowPlace {
            day_file_name,
            index,
        };
        self.make(run, &evidence, &place, dialect, false)?;
        Some(half(parts(&self.row)?.frame))
    }

    /// Returns half the digest of the sample that evidence makes with any line; `None` if it makes none.
    pub(super) fn sample(
        &mut self,
        evidence: &Evidence<'_>,
        dialect: Dialect,
        include_partial: bool,
    ) -> Option<u64> {
        let run = parse::scored_run(br#"{"category":"accepted"}"#).ok()?;
        let place = RowPlace {
            day_file_name: b"",
            index: 0,
        };
        self.make(&run, evidence, &place, dialect, include_partial)?;
        let finder = self.finder.or_else(|| SampleFinder::of(&self.row));
        self.finder = finder;
        Some(half(finder?.digest(&self.row)))
    }

    /// Makes a row; `None` if the records make none.
    fn make(
        &mut self,
        run: &ScoredRun<'_>,
        evidence: &Evidence<'_>,
        place: &RowPlace<'_>,
        dialect: Dialect,
        include_partial: bool,
    ) -> Option<()> {
        // The native firewall in both dialects: it lets no unknown category through.
        let Admission::Admitted(admitted) = admit(run, Dialect::Native) else {
            return None;
        };
        let synthesis = Synthesis {
            dialect,
            include_partial,
            stamp: "",
        };
        self.row.clear();
        self.made += 1;
        synthesize(&admitted, evidence, place, &synthesis, &mut self.row).ok()
    }
}
