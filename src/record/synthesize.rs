//! Makes one row of the export from an admitted run and its evidence: the same bytes for the same input. Takes only runs
//! that the firewall admitted.

use std::io::Write as _;

use crate::record::firewall::AdmittedRun;
use crate::record::json::escape::{Dialect, escape};
use crate::record::parse::{Evidence, JsonText};

/// The reason why a scored run yields no sample although it is not firewalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// The scored run's category is unknown; the firewall decides this.
    UnknownCategory,
    /// An operator ordered the run out; the join of the pair decides this.
    Ordered,
    /// The model's role is not an instructable one.
    WrongRole,
    /// The model's text is blank.
    BlankText,
}

impl Refusal {
    /// Returns the rule in words.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Refusal::UnknownCategory => "the category is unknown",
            Refusal::Ordered => "a standing order of an operator is on the run",
            Refusal::WrongRole => "the evidence's model_role is not executor, reviewer or applier",
            Refusal::BlankText => "the evidence's text is empty or white space alone",
        }
    }

    /// Returns the value that the rule tests, if it is known: the category of the run, or a part of its evidence.
    #[must_use]
    pub fn value(
        self,
        category: Option<String>,
        evidence: Option<&Evidence<'_>>,
    ) -> Option<String> {
        match self {
            Refusal::UnknownCategory => category,
            Refusal::Ordered => None,
            Refusal::WrongRole => Some(evidence?.model_role.decode().into_owned()),
            Refusal::BlankText => {
                let text = evidence?.text.decode();
                Some(text.chars().take(SHOWN_CHARS_MAX).collect())
            }
        }
    }
}

/// Returns the maximum length of a native row whose two lines have at most this length, bytes. Each byte is in the row at
/// most once, and a byte that is not UTF-8 becomes a character of three.
#[must_use]
pub const fn row_len_max(line_bytes_max: u64) -> u64 {
    /// The keys, the name of the day-file, the numbers, the times and the template of the instruction.
    const REST: u64 = 4_096;
    2 * 3 * line_bytes_max + REST
}

/// Maximum characters of a blank text that are shown.
const SHOWN_CHARS_MAX: usize = 80;

/// The settings of row synthesis.
#[derive(Debug, Clone, Copy)]
pub struct Synthesis<'a> {
    /// The dialect of the bytes.
    pub dialect: Dialect,
    /// Accepts every model role; no other rule changes.
    pub include_partial: bool,
    /// Timestamp for `created_at` and `recorded_at`, RFC 3339 UTC with milliseconds.
    pub stamp: &'a str,
}

/// The position of the scored run.
#[derive(Debug, Clone, Copy)]
pub struct RowPlace<'a> {
    /// Name of the day-file, `NAME.jsonl`, without its directory: bytes that may not be UTF-8.
    pub day_file_name: &'a [u8],
    /// Index among the well-formed records of the scored day-file, from 0.
    pub index: u64,
}

/// Appends one row with its newline.
///
/// # Errors
/// The run yields no sample; then nothing is appended.
pub fn synthesize(
    admitted: &AdmittedRun<'_, '_>,
    evidence: &Evidence<'_>,
    place: &RowPlace<'_>,
    synthesis: &Synthesis<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    if !synthesis.include_partial && !is_instructable(&evidence.model_role) {
        return Err(Refusal::WrongRole);
    }
    if evidence.text.is_blank() {
        return Err(Refusal::BlankText);
    }
    let run = admitted.run();
    let mut row = RowWriter {
        dialect: synthesis.dialect,
        out,
    };
    row.raw("{\"schema_version\":1,\"id\":\"");
    row.file_name(place.day_file_name);
    row.raw(":");
    row.number(place.index);
    row.raw("\",\"instruction\":\"");
    row.instruction(evidence);
    row.raw("\",\"context\":\"");
    row.context(evidence);
    row.raw("\",\"response\":\"");
    row.json(&evidence.text);
    row.raw("\",\"source_run_id\":\"");
    row.json(&run.evidence_run_id);
    row.raw("\",\"quality_score\":\"");
    row.json(&run.category);
    row.raw("\",\"created_at\":\"");
    row.text(synthesis.stamp);
    row.raw("\",\"provenance\":{\"source_file\":\"");
    row.json(&run.provenance.source_file);
    row.raw("\",\"line_offset\":");
    row.number(run.provenance.line_offset);
    row.raw(",\"sig_hash\":\"");
    row.json(&run.provenance.sig_hash);
    row.raw("\",\"recorded_at\":\"");
    row.text(synthesis.stamp);
    row.raw("\"}}\n");
    Ok(())
}

fn is_instructable(role: &JsonText<'_>) -> bool {
    ["executor", "reviewer", "applier"]
        .iter()
        .any(|known| role.eq_str(known))
}

/// Writes parts of JSON strings directly into the row.
struct RowWriter<'o> {
    dialect: Dialect,
    out: &'o mut Vec<u8>,
}

impl RowWriter<'_> {
    fn raw(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    fn text(&mut self, text: &str) {
        escape(text, self.dialect, self.out);
    }

    /// Writes a name of a file. Go has an escape for each byte that is not UTF-8, and none for U+FFFD itself.
    fn file_name(&mut self, name: &[u8]) {
        for chunk in name.utf8_chunks() {
            self.text(chunk.valid());
            for _ in chunk.invalid() {
                self.raw(match self.dialect {
                    Dialect::Native => "\u{fffd}",
                    Dialect::Go => "\\ufffd",
                });
            }
        }
    }

    fn json(&mut self, text: &JsonText<'_>) {
        text.write_escaped(self.dialect, self.out);
    }

    fn number(&mut self, number: impl std::fmt::Display) {
        write!(self.out, "{number}").expect("writing to memory does not fail");
    }

    fn first_source_file(&mut self, evidence: &Evidence<'_>) {
        match evidence.first_source_file.is_empty() {
            true => self.text("<file>"),
            false => self.json(&evidence.first_source_file),
        }
    }

    /// Writes the task id without one leading `prefix`, which is compared with the decoded text.
    fn task_id(&mut self, evidence: &Evidence<'_>, prefix: &str) {
        let task_id = evidence.task_id.decode();
        self.text(task_id.strip_prefix(prefix).unwrap_or(&task_id));
    }

    fn instruction(&mut self, evidence: &Evidence<'_>) {
        let source_file = evidence.provenance.source_file.decode();
        let stem = stem(&source_file);
        match stem {
            "scrum_reviews" => {
                self.raw("Review the file '");
                self.first_source_file(evidence);
                self.raw("' against the PRD + change-proposal context. Produce a forensic audit with findings, severity, confidence, patches.");
            }
            "mode_experiments" => {
                self.raw("Run task_class='");
                self.json(&evidence.task_id);
                self.raw("' for file '");
                self.first_source_file(evidence);
                self.raw("'. Produce the mode-runner's expected output shape.");
            }
            "auto_apply" => {
                self.raw("Auto-apply: emit a 6-line surgical patch for '");
                self.first_source_file(evidence);
                self.raw("' based on the latest scrum review findings.");
            }
            "audits" => {
                self.raw("Audit phase '");
                self.task_id(evidence, "phase:");
                self.raw("' and report findings with severity.");
            }
            "observer_reviews" => {
                self.raw("Observer-review the latest attempt on '");
                self.first_source_file(evidence);
                self.raw("'. Verdict: accept | reject | cycle.");
            }
            "contract_analyses" => self.contract_analysis(evidence),
            "outcomes" => self.raw("Run scenario; report per-event outcome with citations."),
            _ => {
                self.raw("Source '");
                self.text(stem);
                self.raw("' run; produce the appropriate output for this task type.");
            }
        }
    }

    /// Writes the instruction for a contract analysis. The Go dialect ignores the contractor.
    fn contract_analysis(&mut self, evidence: &Evidence<'_>) {
        match evidence.contractor {
            Some(contractor) if !contractor.is_empty() && self.dialect == Dialect::Native => {
                self.raw("Analyze contractor '");
                self.json(&contractor);
                self.raw("' for permit '");
            }
            _ => self.raw("Analyze permit '"),
        }
        self.task_id(evidence, "permit:");
        self.raw("'. Recommend with risk markers.");
    }

    fn context(&mut self, evidence: &Evidence<'_>) {
        let mut separator = "";
        if !evidence.matrix_corpora.is_empty() {
            self.raw("matrix=");
            for (index, corpus) in evidence.matrix_corpora.iter().enumerate() {
                self.raw(if index == 0 { "" } else { "," });
                self.json(&corpus);
            }
            separator = " \u{b7} ";
        }
        if evidence.pathway_fingerprints_seen > 0 {
            self.raw(separator);
            self.raw("pathway_fingerprints=");
            self.number(evidence.pathway_fingerprints_seen);
            separator = " \u{b7} ";
        }
        if !evidence.model_name.is_empty() {
            self.raw(separator);
            self.raw("model=");
            self.json(&evidence.model_name);
        }
    }
}

/// Returns the stem of a source file, which names its kind of work: the path without one leading `data/_kb/` and one
/// trailing `.jsonl`.
fn stem(source_file: &str) -> &str {
    let name = source_file.strip_prefix("data/_kb/").unwrap_or(source_file);
    name.strip_suffix(".jsonl").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::firewall::{Admission, admit};
    use crate::record::parse::{evidence, scored_run};

    const SCORED: &str = r#"{"evidence_run_id":"r","category":"accepted","provenance":{"source_file":"f","line_offset":-3,"sig_hash":"s","recorded_at":"old"}}"#;

    fn row(
        line: &str,
        dialect: Dialect,
        include_partial: bool,
    ) -> Result<serde_json::Value, Refusal> {
        let run = scored_run(SCORED.as_bytes()).unwrap();
        let Admission::Admitted(admitted) = admit(&run, dialect) else {
            panic!("an accepted run is admitted");
        };
        let place = RowPlace {
            day_file_name: b"a\"b.jsonl",
            index: 7,
        };
        let synthesis = Synthesis {
            dialect,
            include_partial,
            stamp: "now",
        };
        let mut out = b"before".to_vec();
        let made = synthesize(
            &admitted,
            &evidence(line.as_bytes()).unwrap(),
            &place,
            &synthesis,
            &mut out,
        );
        match made {
            Ok(()) => Ok(serde_json::from_slice(out.strip_prefix(b"before").unwrap()).unwrap()),
            Err(refusal) => {
                assert_eq!(out, b"before", "a refusal appends nothing");
                Err(refusal)
            }
        }
    }

    fn instruction(source_file: &str, rest: &str) -> String {
        let line = format!(
            r#"{{"model_role":"executor","text":"t","provenance":{{"source_file":"{source_file}"}}{rest}}}"#
        );
        let row = row(&line, Dialect::Native, false).unwrap();
        row["instruction"].as_str().unwrap().to_owned()
    }

    #[test]
    fn no_row_is_longer_than_its_limit() {
        const PIECES: [&[u8]; 7] = [
            b"\xff",
            b"\xf0\x9f\x98",
            b"\\u0001",
            b"\\ud800",
            b"\\b",
            b"<",
            b"\xe2\x80",
        ];
        let stems = [
            "scrum_reviews",
            "mode_experiments",
            "auto_apply",
            "audits",
            "observer_reviews",
            "contract_analyses",
            "outcomes",
        ];
        for piece in PIECES {
            let long = piece.repeat(3_000);
            for stem in stems.map(str::as_bytes).into_iter().chain([&long[..]]) {
                let field = |key: &str, text: &[u8]| {
                    [format!("\"{key}\":\"").as_bytes(), text, b"\","].concat()
                };
                let mut scored = field("evidence_run_id", &long);
                scored.extend(field("category", b"partially_accepted"));
                scored.extend(b"\"provenance\":{");
                scored.extend(field("source_file", &long));
                scored.extend(field("sig_hash", &long));
                scored.extend(b"\"line_offset\":-9223372036854775808}");
                let mut line = Vec::new();
                for key in ["text", "task_id", "model_name"] {
                    line.extend(field(key, &long));
                }
                line.extend(field("model_role", b"executor"));
                let list = [b"[\"", &long[..], b"\",null,null,\"\"]"].concat();
                line.extend([b"\"source_files\":", &list[..]].concat());
                line.extend([b",\"retrieved_context\":{\"matrix_corpora\":", &list[..]].concat());
                line.extend(
                    b",\"pathway_fingerprints_seen\":9223372036854775807},\"provenance\":{",
                );
                line.extend(field("source_file", stem));
                line.extend(b"\"line_offset\":0},\"metadata\":{");
                line.extend(field("contractor", &long));
                line.extend(b"\"x\":0}");
                let object = |fields: &[u8]| [b"{", fields, b"}"].concat();
                let (scored, line) = (object(&scored), object(&line));
                let run = scored_run(&scored).unwrap();
                let Admission::Admitted(admitted) = admit(&run, Dialect::Native) else {
                    panic!("an accepted run is admitted");
                };
                let place = RowPlace {
                    day_file_name: &b"\x01".repeat(255),
                    index: u64::from(u32::MAX),
                };
                let synthesis = Synthesis {
                    dialect: Dialect::Native,
                    include_partial: false,
                    stamp: "2026-05-02T03:04:05.678Z",
                };
                let mut out = Vec::new();
                synthesize(
                    &admitted,
                    &evidence(&line).unwrap(),
                    &place,
                    &synthesis,
                    &mut out,
                )
                .unwrap();
                // The longer of both lines alone would hide a byte that is in the row twice.
                let lines = (scored.len() + line.len()) as u64;
                let limit = row_len_max(lines.div_ceil(2));
                assert!(out.len() as u64 <= limit, "{} of {limit}", out.len());
            }
        }
    }

    #[test]
    fn a_file_name_that_is_not_utf8_has_an_escape_in_the_go_dialect_alone() {
        let name = |dialect| {
            let mut out = Vec::new();
            RowWriter {
                dialect,
                out: &mut out,
            }
            .file_name(b"x\xe2\x82\xef\xbf\xbd\xff<.jsonl");
            String::from_utf8(out).unwrap()
        };
        let native = "x\u{fffd}\u{fffd}\u{fffd}\u{fffd}<.jsonl";
        assert_eq!(name(Dialect::Native), native);
        let go = "x\\ufffd\\ufffd\u{fffd}\\ufffd\\u003c.jsonl";
        assert_eq!(name(Dialect::Go), go);
    }

    #[test]
    fn each_stem_has_its_template() {
        let rest = r#","task_id":"\u0070hase:1","source_files":["f\"o"]"#;
        for (stem, expected) in [
            (
                "scrum_reviews",
                "Review the file 'f\"o' against the PRD + change-proposal context. Produce a forensic audit with findings, severity, confidence, patches.",
            ),
            (
                "mode_experiments",
                "Run task_class='phase:1' for file 'f\"o'. Produce the mode-runner's expected output shape.",
            ),
            (
                "auto_apply",
                "Auto-apply: emit a 6-line surgical patch for 'f\"o' based on the latest scrum review findings.",
            ),
            (
                "audits",
                "Audit phase '1' and report findings with severity.",
            ),
            (
                "observer_reviews",
                "Observer-review the latest attempt on 'f\"o'. Verdict: accept | reject | cycle.",
            ),
            (
                "contract_analyses",
                "Analyze permit 'phase:1'. Recommend with risk markers.",
            ),
            (
                "outcomes",
                "Run scenario; report per-event outcome with citations.",
            ),
            (
                "else\\nwhere",
                "Source 'else\nwhere' run; produce the appropriate output for this task type.",
            ),
        ] {
            assert_eq!(
                instruction(&format!("data\\/_kb/{stem}.jsonl"), rest),
                expected
            );
        }
        let twice = instruction("data/_kb/data/_kb/outcomes.jsonl.jsonl", "");
        assert!(
            twice.starts_with("Source 'data/_kb/outcomes.jsonl' run;"),
            "{twice}"
        );
    }

    #[test]
    fn a_contractor_is_named_by_the_native_dialect_alone() {
        let rest = r#","task_id":"permit:permit:9","metadata":{"contractor":"O'N \"x\""}"#;
        let expected =
            "Analyze contractor 'O'N \"x\"' for permit 'permit:9'. Recommend with risk markers.";
        assert_eq!(instruction("contract_analyses", rest), expected);
        let line = format!(
            r#"{{"model_role":"applier","text":"t","provenance":{{"source_file":"contract_analyses"}}{rest}}}"#
        );
        let go = row(&line, Dialect::Go, false).unwrap();
        assert_eq!(
            go["instruction"],
            "Analyze permit 'permit:9'. Recommend with risk markers."
        );
    }

    #[test]
    fn the_context_names_the_fields_that_are_set() {
        for (fields, expected) in [
            ("", ""),
            (r#","model_name":"m""#, "model=m"),
            (
                r#","retrieved_context":{"pathway_fingerprints_seen":2}"#,
                "pathway_fingerprints=2",
            ),
            (
                r#","retrieved_context":{"pathway_fingerprints_seen":-2,"matrix_corpora":[]}"#,
                "",
            ),
            (
                r#","retrieved_context":{"matrix_corpora":[null]}"#,
                "matrix=",
            ),
            (
                r#","model_name":"\u006d","retrieved_context":{"pathway_fingerprints_seen":1,"matrix_corpora":["a","b"]}"#,
                "matrix=a,b \u{b7} pathway_fingerprints=1 \u{b7} model=m",
            ),
        ] {
            let line = format!(r#"{{"model_role":"reviewer","text":"t"{fields}}}"#);
            assert_eq!(
                row(&line, Dialect::Native, false).unwrap()["context"],
                expected
            );
        }
    }

    #[test]
    fn partial_rows_lift_the_role_rule_alone() {
        let wrong_role = r#"{"model_role":"Executor","text":"t"}"#;
        assert_eq!(
            row(wrong_role, Dialect::Native, false),
            Err(Refusal::WrongRole)
        );
        assert!(row(wrong_role, Dialect::Native, true).is_ok());
        let blank = r#"{"model_role":"x","text":"\u3000\n"}"#;
        assert_eq!(row(blank, Dialect::Native, false), Err(Refusal::WrongRole));
        assert_eq!(row(blank, Dialect::Native, true), Err(Refusal::BlankText));
    }

    #[test]
    fn a_row_holds_the_scored_runs_provenance_and_two_stamps() {
        let made = row(
            r#"{"model_role":"executor","text":"t"}"#,
            Dialect::Native,
            false,
        )
        .unwrap();
        let expected = r#"{"schema_version":1,"id":"a\"b.jsonl:7","instruction":"Source '' run; produce the appropriate output for this task type.","context":"","response":"t","source_run_id":"r","quality_score":"accepted","created_at":"now","provenance":{"source_file":"f","line_offset":-3,"sig_hash":"s","recorded_at":"now"}}"#;
        assert_eq!(
            made,
            serde_json::from_str::<serde_json::Value>(expected).unwrap()
        );
    }

    #[test]
    fn any_text_becomes_one_line_of_json_with_the_same_text() {
        const PIECES: [&[u8]; 14] = [
            b"plain words",
            b"\\n",
            b"\\\"",
            b"\\\\",
            b"\\ud83d",
            b"\\ude00",
            b"\\u0000",
            b"\\u001F",
            b"<&>",
            b"\xe2\x80\xa8",
            b"\xe2\x80",
            b"\xff",
            b"\xf0\x9f\x98\x80",
            b"\\\",\\\"quality_score\\\":\\\"rejected",
        ];
        let run = scored_run(SCORED.as_bytes()).unwrap();
        const SIZES: [usize; 4] = [0, 1, 3, 7];
        for seed in 0..5_000_u64 {
            let random = &mut fastrand::Rng::with_seed(seed);
            let mut random_text = || {
                let pieces = std::iter::repeat_with(|| *random.choice(&PIECES).unwrap());
                let few: Vec<_> = pieces.take(SIZES[seed as usize % SIZES.len()]).collect();
                few.concat()
            };
            let (text, task, model) = (random_text(), random_text(), random_text());
            let line = [
                &b"{\"model_role\":\"executor\",\"provenance\":{\"source_file\":\"audits\"},\"text\":\"x"[..], &text,
                b"\",\"task_id\":\"", &task, b"\",\"model_name\":\"m", &model, b"\"}",
            ]
            .concat();
            let evidence = evidence(&line).unwrap();
            for dialect in [Dialect::Native, Dialect::Go] {
                let Admission::Admitted(admitted) = admit(&run, dialect) else {
                    panic!("an accepted run is admitted");
                };
                let place = RowPlace {
                    day_file_name: b"n.jsonl",
                    index: 0,
                };
                let synthesis = Synthesis {
                    dialect,
                    include_partial: false,
                    stamp: "now",
                };
                let mut out = Vec::new();
                synthesize(&admitted, &evidence, &place, &synthesis, &mut out).unwrap();
                let row: serde_json::Value = serde_json::from_slice(&out).unwrap();
                assert_eq!(memchr::memchr_iter(b'\n', &out).count(), 1, "seed {seed}");
                assert_eq!(row["response"], *evidence.text.decode(), "seed {seed}");
                assert_eq!(
                    row["context"],
                    format!("model={}", evidence.model_name.decode()),
                    "seed {seed}"
                );
                let instruction = format!(
                    "Audit phase '{}' and report findings with severity.",
                    evidence.task_id.decode()
                );
                assert_eq!(row["instruction"], instruction, "seed {seed}");
                assert_eq!(
                    crate::record::final_check::forbidden_in(&out),
                    None,
                    "seed {seed}"
                );
                if dialect == Dialect::Native {
                    let json = serde_json::to_string(&evidence.text.decode()).unwrap();
                    assert!(
                        String::from_utf8(out).unwrap().contains(&json),
                        "seed {seed}"
                    );
                }
            }
        }
    }
}
