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
    /// A sample with other escapes.
    copy: Vec<u8>,
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

    /// Returns half the digests of the samples that a line of evidence makes with any scored line, in the native and in the
    /// Go dialect; `None` if it makes none in the native one. `evidence`: what that reads in the line; `differs`: whether
    /// the Go dialect may read other evidence.
    pub(super) fn samples(
        &mut self,
        line: &[u8],
        evidence: &Evidence<'_>,
        differs: bool,
    ) -> Option<(u64, Option<u64>)> {
        let finder = self.make_sample(evidence, Dialect::Native, false)?;
        let native = half(finder.digest(&self.row));
        // The Go dialect ignores the contractor.
        let go = match differs || evidence.contractor.is_some() {
            true => self.sample_read_in_go(line),
            false => Some(half(finder.digest_in_go(&self.row, &mut self.copy))),
        };
        Some((native, go))
    }

    fn sample_read_in_go(&mut self, line: &[u8]) -> Option<u64> {
        let evidence = parse::evidence_in(line, Dialect::Go).ok()?;
        let finder = self.make_sample(&evidence, Dialect::Go, false)?;
        Some(half(finder.digest(&self.row)))
    }

    /// Returns half the digest of the sample that evidence would make if its role were not refused.
    pub(super) fn sample_of_any_role(&mut self, evidence: &Evidence<'_>) -> Option<u64> {
        let finder = self.make_sample(evidence, Dialect::Native, true)?;
        Some(half(finder.digest(&self.row)))
    }

    fn make_sample(
        &mut self,
        evidence: &Evidence<'_>,
        dialect: Dialect,
        include_partial: bool,
    ) -> Option<SampleFinder> {
        let run = parse::scored_run(br#"{"category":"accepted"}"#).ok()?;
        let place = RowPlace {
            day_file_name: b"",
            index: 0,
        };
        self.make(&run, evidence, &place, dialect, include_partial)?;
        self.finder = self.finder.or_else(|| SampleFinder::of(&self.row));
        self.finder
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_in_go_is_the_same_with_and_without_a_second_reading() {
        const TEXTS: [&str; 8] = [
            "a < b",
            "&\\u003c\\u2028",
            "\u{2028}\u{2027}\u{2029}",
            "\\ud800 \\/ \\u007f",
            "\\b\\f\\u0000",
            "plain",
            "audits.jsonl",
            "contract_analyses.jsonl",
        ];
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut text = || *random.choice(&TEXTS).unwrap();
            let (a, b, c, d, e) = (text(), text(), text(), text(), text());
            let contractor = match seed % 2 {
                0 => "",
                _ => r#","metadata":{"contractor":"x"}"#,
            };
            let line = format!(
                r#"{{"model_role":"executor","text":"{a}","task_id":"{b}","source_files":["{c}"],"retrieved_context":{{"matrix_corpora":["{d}"]}},"provenance":{{"source_file":"{e}"}}{contractor}}}"#
            );
            let mut bytes = line.into_bytes();
            if seed % 3 == 0 {
                bytes[40] = 0xff;
            }
            let Ok((record, differs)) = parse::compared_evidence(&bytes) else {
                continue;
            };
            assert!(!differs);
            let mut maker = PartsMaker::default();
            let quick = maker.samples(&bytes, &record, false).unwrap();
            let read_again = maker.samples(&bytes, &record, true).unwrap();
            assert_eq!(quick, read_again, "seed {seed}");
        }
    }
}
