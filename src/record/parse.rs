//! Parses a line into a scored run or an evidence record, or returns the fault that makes the line malformed. Judges no
//! record and copies nothing out of the line.
//!
//! A field that is absent or `null` has its zero value; a field of another type makes the line malformed, even if a
//! later duplicate of the key replaces it. Of duplicate keys the last one counts, whole. Every other field is
//! skipped.
//!
//! Names match exactly, with one exception that closes the firewall: a key that differs from `category` only in letter
//! case and has a category of the firewall counts, wherever it is. The Go dialect reads as Go's `encoding/json` does:
//! names match in any letter case, in the order of the line; `null` leaves what an earlier key of the name gave, and
//! an object adds to it.

use std::cell::Cell;

use crate::record::category::is_firewalled;
use crate::record::fields::{Before, LONGEST_NAME, Rules, integer, object, record, text, texts};
pub use crate::record::fields::{JsonTexts, ParseError};
use crate::record::json::escape::Dialect;
use crate::record::json::scanner::Scanner;
pub use crate::record::json::scanner::is_whole_value;
pub use crate::record::json::text::JsonText;
pub use crate::record::json::utf8::trim;

/// One scored run; its texts are slices of the line.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScoredRun<'a> {
    /// The run that was scored; the key of the join.
    pub evidence_run_id: JsonText<'a>,
    /// The category that the scorers assigned.
    pub category: JsonText<'a>,
    /// Origin of the scored run.
    pub provenance: Provenance<'a>,
}

/// Origin of a record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Provenance<'a> {
    /// Path of the file it was made from.
    pub source_file: JsonText<'a>,
    /// Its position in that file, in the units of the scorer.
    pub line_offset: i64,
    /// The signature that the scorer computed.
    pub sig_hash: JsonText<'a>,
    /// Time of recording as the scorer wrote it.
    pub recorded_at: JsonText<'a>,
}

impl Before for Provenance<'_> {
    fn is_default(&self) -> bool {
        let texts = [self.source_file, self.sig_hash, self.recorded_at];
        texts.iter().all(JsonText::is_empty) && self.line_offset == 0
    }
}

/// The input and output of a run; its texts are slices of the line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// The key of the join.
    pub run_id: JsonText<'a>,
    /// The task of the run.
    pub task_id: JsonText<'a>,
    /// The model that ran.
    pub model_name: JsonText<'a>,
    /// The role of the model.
    pub model_role: JsonText<'a>,
    /// The model's answer.
    pub text: JsonText<'a>,
    /// The first of `source_files`, empty if there is none.
    pub first_source_file: JsonText<'a>,
    /// The corpora available to the run.
    pub matrix_corpora: JsonTexts<'a>,
    /// Number of pathway fingerprints that the run saw.
    pub pathway_fingerprints_seen: i64,
    /// Origin of the evidence.
    pub provenance: Provenance<'a>,
    /// `metadata.contractor` if it is a string.
    pub contractor: Option<JsonText<'a>>,
}

/// Reads a scored run from a line that is trimmed and not blank, in the native dialect.
///
/// # Errors
/// The first fault found in the line.
pub fn scored_run(line: &[u8]) -> Result<ScoredRun<'_>, ParseError> {
    scored_run_in(line, Dialect::Native)
}

/// As [`scored_run`], in a dialect.
///
/// # Errors
/// The first fault found in the line.
pub fn scored_run_in(line: &[u8], dialect: Dialect) -> Result<ScoredRun<'_>, ParseError> {
    scored_run_by(line, Rules::of(dialect))
}

/// As [`scored_run`], and whether the Go dialect may read another run.
///
/// # Errors
/// The first fault found in the line.
pub fn compared_scored_run(line: &[u8]) -> Result<(ScoredRun<'_>, bool), ParseError> {
    let differs = Cell::new(false);
    let run = scored_run_by(line, Rules::comparing(&differs))?;
    Ok((run, differs.get()))
}

fn scored_run_by<'a>(line: &'a [u8], rules: Rules<'_>) -> Result<ScoredRun<'a>, ParseError> {
    let mut run = ScoredRun::default();
    let mut firewalled = None;
    record(line, rules, |scanner, name| {
        match name {
            b"evidence_run_id" => {
                let before = rules.before(run.evidence_run_id);
                run.evidence_run_id = text(scanner, before, "evidence_run_id")?;
            }
            b"category" => {
                run.category = text(scanner, rules.before(run.category), "category")?;
            }
            b"provenance" => {
                run.provenance = provenance(scanner, rules, rules.before(run.provenance))?;
            }
            _ if name.eq_ignore_ascii_case(b"category") && scanner.peek() == Some(b'"') => {
                let category = scanner.string()?;
                firewalled = firewalled.or(is_firewalled(&category).then_some(category));
            }
            _ => scanner.skip_value()?,
        }
        Ok(())
    })?;
    run.category = firewalled.unwrap_or(run.category);
    Ok(run)
}

/// Reads evidence from a line that is trimmed and not blank, in the native dialect.
///
/// # Errors
/// The first fault found in the line.
pub fn evidence(line: &[u8]) -> Result<Evidence<'_>, ParseError> {
    evidence_in(line, Dialect::Native)
}

/// As [`evidence`], in a dialect.
///
/// # Errors
/// The first fault found in the line.
pub fn evidence_in(line: &[u8], dialect: Dialect) -> Result<Evidence<'_>, ParseError> {
    evidence_by(line, Rules::of(dialect))
}

/// As [`evidence`], and whether the Go dialect may read other evidence.
///
/// # Errors
/// The first fault found in the line.
pub fn compared_evidence(line: &[u8]) -> Result<(Evidence<'_>, bool), ParseError> {
    let differs = Cell::new(false);
    let evidence = evidence_by(line, Rules::comparing(&differs))?;
    Ok((evidence, differs.get()))
}

fn evidence_by<'a>(line: &'a [u8], rules: Rules<'_>) -> Result<Evidence<'a>, ParseError> {
    let mut evidence = Evidence::default();
    record(line, rules, |scanner, name| {
        match name {
            b"run_id" => evidence.run_id = text(scanner, rules.before(evidence.run_id), "run_id")?,
            b"task_id" => {
                evidence.task_id = text(scanner, rules.before(evidence.task_id), "task_id")?;
            }
            b"model_name" => {
                let before = rules.before(evidence.model_name);
                evidence.model_name = text(scanner, before, "model_name")?;
            }
            b"model_role" => {
                let before = rules.before(evidence.model_role);
                evidence.model_role = text(scanner, before, "model_role")?;
            }
            b"text" => evidence.text = text(scanner, rules.before(evidence.text), "text")?,
            b"source_files" => {
                let files = texts(scanner, "source_files")?;
                evidence.first_source_file = files.iter().next().unwrap_or_default();
            }
            b"retrieved_context" => {
                let before = (evidence.matrix_corpora, evidence.pathway_fingerprints_seen);
                (evidence.matrix_corpora, evidence.pathway_fingerprints_seen) =
                    retrieved_context(scanner, rules, rules.before(before))?;
            }
            b"provenance" => {
                let before = rules.before(evidence.provenance);
                evidence.provenance = provenance(scanner, rules, before)?;
            }
            b"metadata" => evidence.contractor = contractor(scanner)?,
            _ => scanner.skip_value()?,
        }
        Ok(())
    })?;
    Ok(evidence)
}

/// Reads a provenance over the one that an earlier key gave.
fn provenance<'a>(
    scanner: &mut Scanner<'a>,
    rules: Rules<'_>,
    mut provenance: Provenance<'a>,
) -> Result<Provenance<'a>, ParseError> {
    object(scanner, rules, "provenance", |scanner, name| {
        match name {
            b"source_file" => {
                let before = rules.before(provenance.source_file);
                provenance.source_file = text(scanner, before, "provenance.source_file")?;
            }
            b"line_offset" => {
                let before = rules.before(provenance.line_offset);
                provenance.line_offset = integer(scanner, before, "provenance.line_offset")?;
            }
            b"sig_hash" => {
                let before = rules.before(provenance.sig_hash);
                provenance.sig_hash = text(scanner, before, "provenance.sig_hash")?;
            }
            b"recorded_at" => {
                let before = rules.before(provenance.recorded_at);
                provenance.recorded_at = text(scanner, before, "provenance.recorded_at")?;
            }
            _ => scanner.skip_value()?,
        }
        Ok(())
    })?;
    Ok(provenance)
}

/// Reads a retrieved context over the one that an earlier key gave.
fn retrieved_context<'a>(
    scanner: &mut Scanner<'a>,
    rules: Rules<'_>,
    (mut corpora, mut fingerprints): (JsonTexts<'a>, i64),
) -> Result<(JsonTexts<'a>, i64), ParseError> {
    object(scanner, rules, "retrieved_context", |scanner, name| {
        match name {
            b"matrix_corpora" => corpora = texts(scanner, "retrieved_context.matrix_corpora")?,
            b"pathway_fingerprints_seen" => {
                let field = "retrieved_context.pathway_fingerprints_seen";
                fingerprints = integer(scanner, rules.before(fingerprints), field)?;
            }
            _ => scanner.skip_value()?,
        }
        Ok(())
    })?;
    Ok((corpora, fingerprints))
}

/// Reads the contractor from `metadata`, which may hold any JSON without making the line malformed.
fn contractor<'a>(scanner: &mut Scanner<'a>) -> Result<Option<JsonText<'a>>, ParseError> {
    let mut contractor = None;
    if scanner.peek() != Some(b'{') {
        scanner.skip_value()?;
        return Ok(None);
    }
    scanner.object(LONGEST_NAME, |scanner, name| -> Result<(), ParseError> {
        match (name, scanner.peek()) {
            (b"contractor", Some(b'"')) => contractor = Some(scanner.string()?),
            (b"contractor", _) => {
                contractor = None;
                scanner.skip_value()?;
            }
            _ => scanner.skip_value()?,
        }
        Ok(())
    })?;
    Ok(contractor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> &'static str {
        evidence(line.as_bytes()).map_or_else(|fault| fault.code(), |_| "ok")
    }

    #[test]
    fn read_fields_have_their_type_or_are_null() {
        for (line, expected) in [
            ("null", "ok"),
            ("{}", "ok"),
            ("[]", "not-an-object"),
            ("17", "not-an-object"),
            ("\"x\"", "not-an-object"),
            ("nul", "syntax"),
            ("{} x", "syntax"),
            ("null null", "syntax"),
            (r#"{"text":5}"#, "wrong-type"),
            (r#"{"text":x}"#, "syntax"),
            (r#"{"text":["#, "syntax"),
            (r#"{"text":5,"text":"later"}"#, "wrong-type"),
            (r#"{"Text":5}"#, "ok"),
            (r#"{"te\u0078t":5}"#, "wrong-type"),
            (r#"{"source_files":[null,"a"]}"#, "ok"),
            (r#"{"source_files":["a",1]}"#, "wrong-type"),
            (r#"{"source_files":"a"}"#, "wrong-type"),
            (r#"{"retrieved_context":[]}"#, "wrong-type"),
            (r#"{"retrieved_context":null,"provenance":null}"#, "ok"),
            (
                r#"{"retrieved_context":{"matrix_corpora":[{}]}}"#,
                "wrong-type",
            ),
            (r#"{"provenance":""}"#, "wrong-type"),
            (r#"{"provenance":{"recorded_at":1}}"#, "wrong-type"),
            (r#"{"metadata":5,"other":{"text":5}}"#, "ok"),
            (r#"{"metadata":[01]}"#, "syntax"),
            (r#"{"metadata":{"contractor":{"a":[1]}}}"#, "ok"),
        ] {
            assert_eq!(code(line), expected, "{line}");
        }
    }

    #[test]
    fn an_integer_is_written_as_one_and_fits() {
        let line_offset = |number: &str| {
            let line = format!("{{\"provenance\":{{\"line_offset\":{number}}}}}");
            scored_run(line.as_bytes()).map(|run| run.provenance.line_offset)
        };
        for (number, expected) in [
            ("7", 7),
            ("-0", 0),
            ("null", 0),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(line_offset(number), Ok(expected), "{number}");
        }
        for number in [
            "9223372036854775808",
            "-9223372036854775809",
            "7.0",
            "1e3",
            "\"7\"",
            "true",
            "[]",
        ] {
            assert_eq!(
                line_offset(number).unwrap_err().code(),
                "wrong-type",
                "{number}"
            );
        }
        assert_eq!(line_offset("07").unwrap_err().code(), "syntax");
    }

    #[test]
    fn the_last_of_duplicate_keys_counts_whole() {
        let line = br#"{"text":"a","text":"b","task_id":"x","task_id":null,
            "provenance":{"source_file":"s","sig_hash":"h"},"provenance":{"source_file":"t"},
            "retrieved_context":{"matrix_corpora":["m"],"pathway_fingerprints_seen":3},"retrieved_context":{},
            "source_files":["f"],"source_files":[],
            "metadata":{"contractor":"c"},"metadata":7}"#;
        let last = evidence(line).unwrap();
        assert_eq!(last.text.decode(), "b");
        assert!(last.task_id.is_empty() && last.provenance.sig_hash.is_empty());
        assert_eq!(last.provenance.source_file.decode(), "t");
        assert!(last.matrix_corpora.is_empty() && last.first_source_file.is_empty());
        assert_eq!(last.pathway_fingerprints_seen, 0);
        assert!(last.contractor.is_none());
        let contractor = br#"{"metadata":{"contractor":"c","contractor":5}}"#;
        assert!(evidence(contractor).unwrap().contractor.is_none());
    }

    /// Returns the category, the source file and the signature.
    fn read_in(dialect: Dialect, line: &str) -> [String; 3] {
        let run = scored_run_in(line.as_bytes(), dialect).unwrap();
        let provenance = run.provenance;
        [run.category, provenance.source_file, provenance.sig_hash]
            .map(|text| text.decode().into_owned())
    }

    #[test]
    fn any_spelling_of_the_category_closes_the_firewall() {
        for (line, native, go) in [
            (
                r#"{"category":"accepted","Category":"rejected"}"#,
                "rejected",
                "rejected",
            ),
            (
                r#"{"CATEGORY":"needs_human_review","category":"accepted"}"#,
                "needs_human_review",
                "accepted",
            ),
            (
                r#"{"c\u0041tegory":"rejected","Category":"x","category":"accepted"}"#,
                "rejected",
                "accepted",
            ),
            (r#"{"category":"rejected","category":null}"#, "", "rejected"),
            (
                r#"{"category":"rejected","Category":"accepted"}"#,
                "rejected",
                "accepted",
            ),
            (
                r#"{"category":"accepted","Category":"Rejected"}"#,
                "accepted",
                "Rejected",
            ),
            (
                r#"{"category":"accepted","categories":"rejected"}"#,
                "accepted",
                "accepted",
            ),
            (
                r#"{"category":"accepted","x":{"Category":"rejected"}}"#,
                "accepted",
                "accepted",
            ),
        ] {
            assert_eq!(read_in(Dialect::Native, line)[0], native, "{line}");
            assert_eq!(read_in(Dialect::Go, line)[0], go, "{line}");
        }
        let line = br#"{"category":"accepted","Category":5}"#;
        assert_eq!(scored_run(line).unwrap().category.decode(), "accepted");
        let fault = scored_run_in(line, Dialect::Go).unwrap_err();
        assert_eq!(fault.to_string(), "field category is not a string");
    }

    #[test]
    fn the_go_dialect_reads_as_encoding_json_does() {
        let line = r#"{"provenance":{"source_file":"s","sig_hash":"h"},"Provenance":{"\u017Fource_File":"t","SIG_HASH":null},
            "PROVENANCE":null}"#;
        assert_eq!(read_in(Dialect::Go, line), ["", "t", "h"]);
        assert_eq!(read_in(Dialect::Native, line), ["", "s", "h"]);
        let line =
            "{\"TAS\u{212a}_ID\":\"t\",\"text\":\"a\",\"Text\":null,\"Source_Files\":[\"f\"],
            \"retrieved_context\":{\"matrix_corpora\":[\"m\"]},
            \"Retrieved_Context\":{\"Pathway_Fingerprints_Seen\":3}}";
        let read = evidence_in(line.as_bytes(), Dialect::Go).unwrap();
        let texts = [read.task_id, read.text, read.first_source_file];
        assert_eq!(
            texts.map(|text| text.decode().into_owned()),
            ["t", "a", "f"]
        );
        assert_eq!(read.matrix_corpora.iter().count(), 1);
        assert_eq!(read.pathway_fingerprints_seen, 3);
        let native = evidence(line.as_bytes()).unwrap();
        assert!(native.task_id.is_empty() && native.matrix_corpora.iter().count() == 1);
    }

    /// Fields with odd names, twice, and with `null`.
    #[test]
    fn where_the_dialects_are_said_to_read_the_same_they_do() {
        const FIELDS: [&str; 16] = [
            r#""text":"a""#,
            r#""text":null"#,
            r#""Text":"b""#,
            r#""te\u0078t":"c""#,
            r#""run_id":"r""#,
            r#""evidence_run_id":"e""#,
            r#""category":"accepted""#,
            r#""cate\u0047ory":"rejected""#,
            r#""provenance":{"line_offset":4}"#,
            r#""provenance":{"Source_file":"s","sig_hash":null}"#,
            r#""retrieved_context":{"matrix_corpora":["m"]}"#,
            r#""retrieved_context":{"pathway_fingerprints_seen":3}"#,
            r#""retrieved_context":null"#,
            r#""tas\u212a_id":"t""#,
            r#""source_files":["f"]"#,
            r#""metadata":{"contractor":"c","Other":1}"#,
        ];
        let (mut same, mut different) = (0, 0);
        for seed in 0..5_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let fields = (0..random.usize(..4)).map(|_| *random.choice(&FIELDS).unwrap());
            let line = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
            let bytes = line.as_bytes();
            let (run, run_differs) = compared_scored_run(bytes).unwrap();
            let (record, evidence_differs) = compared_evidence(bytes).unwrap();
            let text = |read: &dyn std::fmt::Debug| format!("{read:?}");
            assert_eq!(text(&run), text(&scored_run(bytes).unwrap()), "{line}");
            assert_eq!(text(&record), text(&evidence(bytes).unwrap()), "{line}");
            let go = scored_run_in(bytes, Dialect::Go).unwrap();
            assert!(run_differs || text(&run) == text(&go), "{line}");
            let go = evidence_in(bytes, Dialect::Go).unwrap();
            assert!(evidence_differs || text(&record) == text(&go), "{line}");
            same += u32::from(!run_differs && !evidence_differs);
            different += u32::from(text(&record) != text(&go));
        }
        assert!(same > 1_000 && different > 500, "{same} {different}");
    }

    #[test]
    fn a_list_is_read_again_with_nulls_as_empty_strings() {
        let line = br#"{"retrieved_context":{"matrix_corpora": [ "a,]" , null,"\u0062" ]}}"#;
        let corpora = evidence(line).unwrap().matrix_corpora;
        let read: Vec<_> = corpora.iter().map(|text| text.decode()).collect();
        assert_eq!(read, ["a,]", "", "b"]);
    }

    #[test]
    fn faults_name_position_and_cause() {
        let fault = evidence(br#"{"text":"a" "b"}"#).unwrap_err();
        let expected = "not JSON at byte 12: a comma or the end of a list or object is missing";
        assert_eq!(fault.to_string(), expected);
        let fault = evidence(br#"{"source_files":4}"#).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "field source_files is not a list of strings"
        );
    }

    #[test]
    fn faults_of_the_encoding_are_named() {
        const LINE: &str = r#"{"run_id":"r"}"#;
        let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            LINE.encode_utf16().flat_map(bytes).collect()
        };
        // The lines of a file, split at the byte of the newline.
        let (le, be) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
        let lines = [
            le.clone(),
            be.clone(),
            [&[0xFF, 0xFE], &le[..]].concat(),
            [&[0xFE, 0xFF], &be[..]].concat(),
            [&[0], &le[..]].concat(),
            [&be[..], &[0]].concat(),
        ];
        for line in lines {
            let fault = evidence(&line).unwrap_err().to_string();
            assert!(
                fault.ends_with(": the line is UTF-16, not UTF-8"),
                "{fault}"
            );
        }
        for (line, expected) in [
            (
                format!("\u{feff}{LINE}"),
                "0: a byte order mark is in front of the value",
            ),
            (format!("\0\0\0{LINE}"), "0: a NUL byte"),
            (LINE.replace(':', ":\0"), "10: a NUL byte"),
            (LINE.replace("\"r", "\"r\0"), "3: a NUL byte"),
            ("\0".repeat(9), "0: a NUL byte"),
            ("\0".to_owned(), "0: a NUL byte"),
            (
                LINE.replace("\"r", "\"\u{1}r"),
                "2: a string has a raw control character",
            ),
        ] {
            let fault = evidence(line.as_bytes()).unwrap_err().to_string();
            assert_eq!(fault, format!("not JSON at byte {expected}"));
        }
    }

    /// Random JSON, sometimes with a changed byte.
    fn random_value(random: &mut fastrand::Rng, depth: u32, out: &mut String) {
        match random.u32(0..if depth == 0 { 6 } else { 9 }) {
            0 => out.push_str(random.choice(["null", "true", "false"]).unwrap()),
            1 => out.push_str(
                random
                    .choice(["0", "-0", "12", "-1.5", "1e5", "9e-3", "123456789012"])
                    .unwrap(),
            ),
            2..=5 => random_string(random, out),
            container => {
                let (open, close) = if container == 6 {
                    ('[', ']')
                } else {
                    ('{', '}')
                };
                out.push(open);
                for index in 0..random.u32(0..4) {
                    out.push_str(if index == 0 {
                        ""
                    } else {
                        random.choice([",", " , "]).unwrap()
                    });
                    if open == '{' {
                        random_string(random, out);
                        out.push_str(random.choice([":", " :\t"]).unwrap());
                    }
                    random_value(random, depth - 1, out);
                }
                out.push(close);
            }
        }
    }

    fn random_string(random: &mut fastrand::Rng, out: &mut String) {
        const PIECES: [&str; 18] = [
            "a",
            "text",
            "longer than eight bytes ",
            "\u{e9}",
            "\u{2028}",
            "\u{1f600}",
            "\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "\\u0041",
            "\\u001f",
            "\\u001F",
            "\\ud83d\\ude00",
            "<",
            "\\b",
            "\\u00e9",
            "'",
        ];
        out.push('"');
        for _ in 0..random.usize(0..6) {
            out.push_str(random.choice(PIECES).unwrap());
        }
        out.push('"');
    }

    #[test]
    fn the_scanner_and_serde_json_agree_where_both_have_the_same_rules() {
        let (mut accepted, mut refused) = (0, 0);
        for seed in 0..40_000 {
            let random = &mut fastrand::Rng::with_seed(seed);
            let mut line = String::new();
            random_value(random, 4, &mut line);
            let mut line = line.into_bytes();
            if random.bool() {
                let at = random.usize(0..line.len());
                match random.u32(0..3) {
                    0 => line[at] = *random.choice(b"\"\\{}[]:,0-1.eEu \x01nx").unwrap(),
                    1 => drop(line.remove(at)),
                    _ => line.insert(at, *random.choice(b"\"\\{}[]:,0-1.eEu \x1fnx").unwrap()),
                }
            }
            // The contract accepts what serde_json rejects: lone surrogates and bytes that are not UTF-8.
            if std::str::from_utf8(&line).is_err() {
                continue;
            }
            let theirs = serde_json::from_slice::<serde_json::Value>(trim(&line));
            if let Err(error) = &theirs
                && ["surrogate", "hex escape", "number out of range"]
                    .iter()
                    .any(|what| error.to_string().contains(what))
            {
                continue;
            }
            let shown = String::from_utf8_lossy(&line).into_owned();
            assert_eq!(
                is_whole_value(&line),
                theirs.is_ok(),
                "seed {seed}: {shown}"
            );
            match theirs {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
            if let Ok(serde_json::Value::String(expected)) = theirs {
                let record = [b"{\"category\":", trim(&line), b"}"].concat();
                let category = scored_run(&record).unwrap().category;
                assert_eq!(category.decode(), expected, "seed {seed}: {shown}");
                let mut written = Vec::new();
                category.write_json(crate::record::json::escape::Dialect::Native, &mut written);
                assert_eq!(
                    written,
                    serde_json::to_vec(&expected).unwrap(),
                    "seed {seed}: {shown}"
                );
            }
        }
        assert!(accepted > 15_000 && refused > 5_000, "{accepted} {refused}");
    }
}
