//! Text that describes one failure of a verification.

use crate::batch::verify::Verification;
use crate::batch::verify::compare::LineFact;
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::rows::ExportReader;
use crate::batch::verify::tally::{Explanation, Finding, Kind, Tally};
use crate::lake::path::{Stream, export_path};
use crate::record::parse;
use crate::record::row::view;

impl Verification<'_> {
    /// Describes a finding: the row or line concerned and the reason. Reads both again from their files.
    pub(super) fn describe(&self, key: &Tally, finding: &Finding) -> Result<String, VerifyError> {
        let line = finding.line.as_ref();
        let line = line.or(key.pairs.first().map(|pair| &pair.first));
        let verdict = line.map_or("", |line| line.verdict.code());
        let line = line.map_or(String::new(), |line| self.describe_line(line));
        let Some(found) = finding.row else {
            return Ok(format!("missing: {line} has no row in the export"));
        };
        let path = export_path(&self.lake.root);
        let export = ExportReader::new(self.lake.storage, &path, self.options.max_line_bytes);
        let bytes = export.row_at(found.offset)?;
        let run = view(&bytes).map_or_else(
            |_| "the row".to_owned(),
            |row| format!("the row {:?} of run {:?}", row.id, row.source_run_id),
        );
        let row = format!("{run} at byte {} of {}", found.offset, path.display());
        let export_changed = finding.explanation == Some(Explanation::ExportChange);
        Ok(match finding.kind {
            Kind::Duplicate => {
                let rows = key.rows_total;
                let exported = match key.lines_exported() {
                    1 => "1 line".to_owned(),
                    lines => format!("{lines} lines"),
                };
                // An index that no other row has belonged to a line of its own.
                let cause = match found.has_lone_index {
                    true => {
                        "; no other of these rows has its index, so its own line was removed, or lost in a power cut"
                    }
                    false => "",
                };
                format!(
                    "duplicate: {row} is one of {rows} rows for {exported}; {line} is the first{cause}"
                )
            }
            Kind::Altered if export_changed => {
                format!(
                    "altered: {row} is not the row of {line}; its sources changed since, but bytes of the export around \
                     it did too, which nothing but appending may change"
                )
            }
            Kind::Altered => {
                format!(
                    "altered: {row} is not the row of {line}, and its sources have not changed since"
                )
            }
            Kind::SourceChange | Kind::Contradicted | Kind::RefusedNow => {
                format!("{row} is not the row of {line}, and its sources changed since")
            }
            _ if export_changed => format!(
                "unexpected: {row} is in the export, but {line} is refused ({verdict}); its sources changed since, but \
                 bytes of the export around it did too, which nothing but appending may change"
            ),
            _ => format!("unexpected: {row} is in the export, but {line} is refused ({verdict})"),
        })
    }

    /// Describes a line by its position and, if the line can still be read, its run.
    fn describe_line(&self, line: &LineFact) -> String {
        let run = self.lake.open(Stream::Scored, &line.pair).ok();
        let run = run.and_then(|(source, _)| {
            let mut scratch = Vec::new();
            let body = source.read_span(line.span, &mut scratch).ok()?;
            let run = parse::scored_run(parse::trim(body)).ok()?;
            Some(format!(" of run {:?}", run.evidence_run_id))
        });
        format!(
            "the line{} at byte {} of {} (record {})",
            run.unwrap_or_default(),
            line.span.offset,
            line.pair.path(&self.lake.root, Stream::Scored).display(),
            line.index
        )
    }
}
