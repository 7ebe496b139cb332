//! The naive batch join: a second implementation of the data contract, written from its text, slow and simple. Does
//! not import the product's parser, firewall or templates; both have only the contract in common.

pub mod compare;
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use compare::{multiset_difference, row_key};
pub use walk::read_pairs;

use super::naive_json::{Json, parse};

/// A day-file pair: the bytes of scored runs and evidence, where the file exists.
pub type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);

/// All pairs of a lake, keyed `YEAR/MONTH/DAY/NAME.jsonl`.
pub type Pairs = BTreeMap<String, Pair>;

/// Replaces both timestamps in a row.
pub const STAMP: &str = "STAMP";

/// The number of scored lines by verdict, and of lines without a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Scored files.
    pub scored_files: u64,
    /// Well-formed scored lines.
    pub records: u64,
    /// Scored lines that are not such a JSON object.
    pub malformed: u64,
    /// Scored files whose last line has no newline and is not a complete value: not a line yet, in no other count.
    pub has_unarmed: u64,
    /// Evidence lines of scored files' partners that are not such a JSON object.
    pub evidence_malformed: u64,
    /// `rejected` or `needs_human_review`.
    pub firewall: u64,
    /// A category that is none of the four.
    pub unknown_category: u64,
    /// No evidence with the run's id.
    pub no_evidence: u64,
    /// The evidence's role has no instruction-response form.
    pub role: u64,
    /// The evidence's text is blank.
    pub blank_text: u64,
    /// Rows.
    pub exported: u64,
    /// Of the rows: a later line of the pair refuses the run by its category, or has a row of the run.
    pub contradicted: u64,
}

impl Counts {
    /// Returns the count that the batch result calls `not-instructable`.
    pub fn not_instructable(&self) -> u64 {
        self.unknown_category + self.no_evidence + self.role + self.blank_text
    }
}

/// The batch result of a lake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NaiveBatch {
    /// The rows in walk order, without newline, [`STAMP`] for the stamps.
    pub rows: Vec<String>,
    /// The rows that no later line overrules.
    pub effective: Vec<String>,
    /// The verdicts.
    pub counts: Counts,
}

/// The origin of a record.
#[derive(Default)]
pub struct Provenance {
    pub source_file: String,
    pub line_offset: i64,
    pub sig_hash: String,
}

/// A scored run.
pub struct Scored {
    pub run_id: String,
    pub category: String,
    pub provenance: Provenance,
}

/// The evidence of a run.
pub struct Evidence {
    pub run_id: String,
    pub task_id: String,
    pub model_name: String,
    pub model_role: String,
    pub text: String,
    pub source_files: Vec<String>,
    pub corpora: Vec<String>,
    pub fingerprints: i64,
    pub source_file: String,
    pub contractor: Option<String>,
}

enum Verdict {
    Firewall,
    UnknownCategory,
    NoEvidence,
    Role,
    BlankText,
    Exported(String),
}

/// Joins all pairs, in the native dialect.
pub fn naive_batch(pairs: &Pairs, include_partial: bool) -> NaiveBatch {
    let mut batch = NaiveBatch::default();
    let mut walk: Vec<(&String, &Pair)> = pairs.iter().collect();
    // Sorted by path component: in the order of whole paths `01-x/` would precede `01/`.
    walk.sort_by_key(|(path, _)| path.split('/').map(str::to_owned).collect::<Vec<_>>());
    for (path, (scored, evidence)) in walk {
        let Some(scored) = scored else {
            continue;
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        let evidence = evidence.as_deref().unwrap_or_default();
        join_pair(&mut batch, name, scored, evidence, include_partial);
    }
    batch
}

fn join_pair(batch: &mut NaiveBatch, name: &str, scored: &[u8], evidence: &[u8], partial: bool) {
    let mut by_run = HashMap::new();
    let evidence = lines(evidence);
    for line in evidence.whole {
        match parse_evidence(&line) {
            Some(found) => _ = by_run.insert(found.run_id.clone(), found),
            None => batch.counts.evidence_malformed += 1,
        }
    }
    let scored = lines(scored);
    let counts = &mut batch.counts;
    counts.scored_files += 1;
    counts.has_unarmed += u64::from(scored.has_unarmed);
    let mut index = 0;
    // The row of each run that no later line has overruled so far.
    let mut current: HashMap<String, String> = HashMap::new();
    for line in scored.whole {
        let Some(run) = parse_scored(&line) else {
            counts.malformed += 1;
            continue;
        };
        counts.records += 1;
        match verdict(
            &run,
            by_run.get(&run.run_id),
            &format!("{name}:{index}"),
            partial,
        ) {
            Verdict::Firewall => {
                counts.firewall += 1;
                counts.contradicted += u64::from(current.remove(&run.run_id).is_some());
            }
            Verdict::UnknownCategory => {
                counts.unknown_category += 1;
                counts.contradicted += u64::from(current.remove(&run.run_id).is_some());
            }
            Verdict::NoEvidence => counts.no_evidence += 1,
            Verdict::Role => counts.role += 1,
            Verdict::BlankText => counts.blank_text += 1,
            Verdict::Exported(row) => {
                counts.exported += 1;
                let before = current.insert(run.run_id.clone(), row.clone());
                counts.contradicted += u64::from(before.is_some());
                batch.rows.push(row);
            }
        }
        index += 1;
    }
    batch.effective.extend(current.into_values());
}

fn verdict(run: &Scored, evidence: Option<&Evidence>, id: &str, partial: bool) -> Verdict {
    match run.category.as_str() {
        "rejected" | "needs_human_review" => return Verdict::Firewall,
        "accepted" | "partially_accepted" => {}
        _ => return Verdict::UnknownCategory,
    }
    let Some(evidence) = evidence else {
        return Verdict::NoEvidence;
    };
    if !partial && !["executor", "reviewer", "applier"].contains(&evidence.model_role.as_str()) {
        Verdict::Role
    } else if evidence.text.trim().is_empty() {
        Verdict::BlankText
    } else {
        Verdict::Exported(row(run, evidence, id))
    }
}

/// Returns the keys of the rows that the scored lines of a pair would have which its firewall refuses.
pub fn refused_keys(path: &str, scored: &[u8]) -> BTreeSet<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let nothing = parse_evidence("null").expect("a record of zero values");
    lines(scored)
        .whole
        .iter()
        .filter_map(|line| parse_scored(line))
        .filter(|run| !["accepted", "partially_accepted"].contains(&run.category.as_str()))
        .map(|run| row_key(&row(&run, &nothing, &format!("{name}:0"))))
        .collect()
}

/// Returns the verdict on every well-formed scored line: by run id the pairs and names of verdicts, in walk order.
pub fn verdicts(pairs: &Pairs) -> BTreeMap<String, Vec<(String, &'static str)>> {
    let mut verdicts: BTreeMap<String, Vec<(String, &'static str)>> = BTreeMap::new();
    for (path, (scored, evidence)) in pairs {
        let by_run: HashMap<String, Evidence> = lines(evidence.as_deref().unwrap_or_default())
            .whole
            .iter()
            .filter_map(|line| parse_evidence(line))
            .map(|evidence| (evidence.run_id.clone(), evidence))
            .collect();
        for line in lines(scored.as_deref().unwrap_or_default()).whole {
            let Some(run) = parse_scored(&line) else {
                continue;
            };
            let name = match verdict(&run, by_run.get(&run.run_id), "", false) {
                Verdict::Firewall => "firewalled",
                Verdict::UnknownCategory => "unknown_category",
                Verdict::NoEvidence => "waiting",
                Verdict::Role => "wrong_role",
                Verdict::BlankText => "blank_text",
                Verdict::Exported(_) => "exported",
            };
            let of_run = verdicts.entry(run.run_id).or_default();
            of_run.push((path.clone(), name));
        }
    }
    verdicts
}

struct Lines {
    whole: Vec<String>,
    has_unarmed: bool,
}

/// Returns the lines that are not blank; the last one, if it has no newline, only if it is a complete value.
fn lines(bytes: &[u8]) -> Lines {
    let mut whole: Vec<String> = Vec::new();
    let mut has_unarmed = false;
    let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
    while let Some(piece) = pieces.next() {
        let text = repaired(piece);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        if pieces.peek().is_none() && parse(text).is_none() {
            has_unarmed = true;
        } else {
            whole.push(text.to_owned());
        }
    }
    Lines { whole, has_unarmed }
}

/// Returns the text of a line: each byte that belongs to no UTF-8 character becomes a U+FFFD of its own, as in the Go
/// exporter. (`from_utf8_lossy` replaces the whole beginning of a character with one.)
pub fn repaired(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Err(error) = std::str::from_utf8(bytes) {
        let (sound, rest) = bytes.split_at(error.valid_up_to());
        text.extend(String::from_utf8_lossy(sound).chars());
        text.push('\u{fffd}');
        bytes = &rest[1..];
    }
    text + &String::from_utf8_lossy(bytes)
}

fn record(line: &str) -> Option<Json> {
    parse(line).filter(|value| matches!(value, Json::Object(_) | Json::Null))
}

/// Returns whether no run's evidence ever changes after its first form that earns a row. If so, the incremental export
/// must equal the batch; otherwise rows may be superseded.
pub fn evidence_never_changes(evidence: &[u8]) -> bool {
    let mut first_forms: HashMap<String, String> = HashMap::new();
    lines(evidence)
        .whole
        .iter()
        .filter_map(|line| parse_evidence(line))
        .all(|evidence| {
            let run = Scored {
                run_id: evidence.run_id.clone(),
                category: "accepted".to_owned(),
                provenance: Provenance::default(),
            };
            let form = match verdict(&run, Some(&evidence), "", false) {
                Verdict::Exported(row) => Some(row),
                _ => None,
            };
            match (first_forms.get(&evidence.run_id), form) {
                (Some(first), form) => form.as_ref() == Some(first),
                (None, Some(form)) => first_forms.insert(evidence.run_id, form).is_none(),
                (None, None) => true,
            }
        })
}

/// Parses a scored run's line, trimmed; `None` if it is malformed.
pub fn parse_scored(line: &str) -> Option<Scored> {
    let record = record(line)?;
    Some(Scored {
        run_id: text(record.get("evidence_run_id"))?,
        category: refused_by_any_spelling(&record)
            .map_or_else(|| text(record.get("category")), Some)?,
        provenance: provenance(record.get("provenance"))?,
    })
}

/// Returns the category of the firewall that a key gives which is `category` in any letter case but the exact one.
fn refused_by_any_spelling(record: &Json) -> Option<String> {
    let Json::Object(members) = record else {
        return None;
    };
    members.iter().find_map(|(key, value)| match value {
        Json::Text(category)
            if key != "category"
                && key.to_lowercase() == "category"
                && ["rejected", "needs_human_review"].contains(&category.as_str()) =>
        {
            Some(category.clone())
        }
        _ => None,
    })
}

/// Parses an evidence line, trimmed; `None` if it is malformed.
pub fn parse_evidence(line: &str) -> Option<Evidence> {
    let record = record(line)?;
    let context = object(record.get("retrieved_context"))?;
    let contractor = match record.get("metadata").get("contractor") {
        Json::Text(name) => Some(name.clone()),
        _ => None,
    };
    Some(Evidence {
        run_id: text(record.get("run_id"))?,
        task_id: text(record.get("task_id"))?,
        model_name: text(record.get("model_name"))?,
        model_role: text(record.get("model_role"))?,
        text: text(record.get("text"))?,
        source_files: texts(record.get("source_files"))?,
        corpora: texts(context.get("matrix_corpora"))?,
        fingerprints: int(context.get("pathway_fingerprints_seen"))?,
        source_file: provenance(record.get("provenance"))?.source_file,
        contractor,
    })
}

fn provenance(value: &Json) -> Option<Provenance> {
    let value = object(value)?;
    text(value.get("recorded_at"))?;
    Some(Provenance {
        source_file: text(value.get("source_file"))?,
        line_offset: int(value.get("line_offset"))?,
        sig_hash: text(value.get("sig_hash"))?,
    })
}

fn object(value: &Json) -> Option<&Json> {
    matches!(value, Json::Object(_) | Json::Null).then_some(value)
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::Null => Some(String::new()),
        Json::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn int(value: &Json) -> Option<i64> {
    match value {
        Json::Null => Some(0),
        Json::Number(number) => number.parse().ok(),
        _ => None,
    }
}

fn texts(value: &Json) -> Option<Vec<String>> {
    match value {
        Json::Null => Some(Vec::new()),
        Json::List(values) => values.iter().map(text).collect(),
        _ => None,
    }
}

fn row(run: &Scored, evidence: &Evidence, id: &str) -> String {
    format!(
        r#"{{"schema_version":1,"id":{},"instruction":{},"context":{},"response":{},"source_run_id":{},"quality_score":{},"created_at":"{STAMP}","provenance":{{"source_file":{},"line_offset":{},"sig_hash":{},"recorded_at":"{STAMP}"}}}}"#,
        quoted(id),
        quoted(&instruction(evidence)),
        quoted(&context(evidence)),
        quoted(&evidence.text),
        quoted(&run.run_id),
        quoted(&run.category),
        quoted(&run.provenance.source_file),
        run.provenance.line_offset,
        quoted(&run.provenance.sig_hash),
    )
}

fn instruction(evidence: &Evidence) -> String {
    let path = evidence.source_file.as_str();
    let stem = path.strip_prefix("data/_kb/").unwrap_or(path);
    let stem = stem.strip_suffix(".jsonl").unwrap_or(stem);
    let task = evidence.task_id.as_str();
    let file = evidence.source_files.first().map_or("", String::as_str);
    let file = if file.is_empty() { "<file>" } else { file };
    match stem {
        "scrum_reviews" => format!(
            "Review the file '{file}' against the PRD + change-proposal context. Produce a forensic audit with findings, severity, confidence, patches."
        ),
        "mode_experiments" => format!(
            "Run task_class='{task}' for file '{file}'. Produce the mode-runner's expected output shape."
        ),
        "auto_apply" => format!(
            "Auto-apply: emit a 6-line surgical patch for '{file}' based on the latest scrum review findings."
        ),
        "audits" => {
            let phase = task.strip_prefix("phase:").unwrap_or(task);
            format!("Audit phase '{phase}' and report findings with severity.")
        }
        "observer_reviews" => {
            format!(
                "Observer-review the latest attempt on '{file}'. Verdict: accept | reject | cycle."
            )
        }
        "contract_analyses" => {
            let permit = task.strip_prefix("permit:").unwrap_or(task);
            match evidence.contractor.as_deref() {
                Some(contractor) if !contractor.is_empty() => {
                    format!(
                        "Analyze contractor '{contractor}' for permit '{permit}'. Recommend with risk markers."
                    )
                }
                _ => format!("Analyze permit '{permit}'. Recommend with risk markers."),
            }
        }
        "outcomes" => "Run scenario; report per-event outcome with citations.".to_owned(),
        _ => format!("Source '{stem}' run; produce the appropriate output for this task type."),
    }
}

fn context(evidence: &Evidence) -> String {
    let mut parts = Vec::new();
    if !evidence.corpora.is_empty() {
        parts.push(format!("matrix={}", evidence.corpora.join(",")));
    }
    if evidence.fingerprints > 0 {
        parts.push(format!("pathway_fingerprints={}", evidence.fingerprints));
    }
    if !evidence.model_name.is_empty() {
        parts.push(format!("model={}", evidence.model_name));
    }
    parts.join(" · ")
}

/// Returns a JSON string as `JSON.stringify` writes it.
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\0'..='\u{1f}' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => json.push(c),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::compare::blank_stamps;
    use super::*;
    use distilld::platform::storage::OsStorage;
    use std::path::Path;

    fn golden(name: &str) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/suite/golden")
            .join(name);
        std::fs::read(path).unwrap()
    }

    fn check_golden(include_partial: bool, name: &str, exported: u64, not_instructable: u64) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/golden/lake");
        let batch = naive_batch(&read_pairs(&OsStorage, &root).unwrap(), include_partial);
        let expected = String::from_utf8(golden(name)).unwrap();
        let expected: Vec<String> = expected.lines().map(blank_stamps).collect();
        for (row, expected) in batch.rows.iter().zip(&expected) {
            assert_eq!(row, expected);
        }
        assert_eq!(batch.rows.len(), expected.len());
        let counts = batch.counts;
        assert_eq!(
            (counts.records, counts.exported, counts.firewall),
            (276, exported, 66)
        );
        assert_eq!(counts.not_instructable(), not_instructable);
        assert_eq!(multiset_difference(&golden(name), &batch.rows), None);
    }

    #[test]
    fn it_returns_the_golden_rows_in_order() {
        check_golden(false, "expected.native.jsonl", 178, 32);
    }

    #[test]
    fn it_returns_the_golden_rows_with_partial_ones() {
        check_golden(true, "expected.native.include-partial.jsonl", 191, 19);
    }

    #[test]
    fn each_invalid_byte_is_replaced() {
        assert_eq!(
            repaired(b"na\xe1\x9e\xdf\x9da\xff"),
            "na\u{fffd}\u{fffd}\u{7dd}a\u{fffd}"
        );
        assert_eq!(repaired("naïve".as_bytes()), "naïve");
    }

    #[test]
    fn a_last_line_without_newline_counts_only_if_complete() {
        let count = |scored: &str| {
            let pair = (Some(scored.as_bytes().to_vec()), None);
            let counts =
                naive_batch(&Pairs::from([("1/2/3/a.jsonl".to_owned(), pair)]), false).counts;
            (counts.records, counts.malformed, counts.has_unarmed)
        };
        assert_eq!(count("{}\n{}"), (2, 0, 0));
        assert_eq!(count("{}\n[]"), (1, 1, 0));
        assert_eq!(count("{}\n{\"a\":"), (1, 0, 1));
        assert_eq!(count("{}\n{\"a\":\n"), (1, 1, 0));
    }

    #[test]
    fn a_row_is_contradicted_by_a_later_line_of_its_run_once() {
        let count = |lines: &[(&str, &str)]| {
            let line = |(run, category): &(&str, &str)| {
                format!("{{\"evidence_run_id\":\"{run}\",\"category\":\"{category}\"}}\n")
            };
            let scored: String = lines.iter().map(line).collect();
            let evidence = b"{\"run_id\":\"a\",\"model_role\":\"executor\",\"text\":\"t\"}\n";
            let pair = (Some(scored.into_bytes()), Some(evidence.to_vec()));
            let pairs = Pairs::from([("1/2/3/a.jsonl".to_owned(), pair)]);
            naive_batch(&pairs, false).counts.contradicted
        };
        let (accepted, rejected) = (("a", "accepted"), ("a", "rejected"));
        assert_eq!(count(&[accepted, rejected]), 1);
        assert_eq!(count(&[accepted, accepted, rejected, rejected]), 2);
        assert_eq!(count(&[rejected, accepted]), 0);
        assert_eq!(count(&[accepted, ("b", "rejected")]), 0);
        assert_eq!(count(&[("b", "accepted"), ("b", "rejected")]), 0);
    }

    #[test]
    fn the_difference_names_missing_duplicate_and_torn_rows() {
        let row = |id: u32, stamp: &str| {
            format!(
                r#"{{"id":{id},"created_at":"{stamp}","provenance":{{"x":0,"recorded_at":"{stamp}"}}}}"#
            )
        };
        let naive = [row(1, STAMP), row(2, STAMP), row(2, STAMP)];
        let export = |ids: &[u32]| {
            ids.iter()
                .map(|id| row(*id, "2026-01-01") + "\n")
                .collect::<String>()
        };
        let difference = |export: String| multiset_difference(export.as_bytes(), &naive);
        assert_eq!(difference(export(&[2, 1, 2])), None);
        assert!(
            difference(export(&[2, 1]))
                .unwrap()
                .contains("1 times in the export, 2 expected")
        );
        assert!(
            difference(export(&[1, 1, 2, 2]))
                .unwrap()
                .contains("2 times in the export, 1 expected")
        );
        assert!(
            difference(export(&[1, 2, 2]) + "{\"id")
                .unwrap()
                .contains("ends inside a line")
        );
        assert!(multiset_difference(b"", &[]).is_none());
    }

    #[test]
    fn rows_of_one_scored_line_have_one_key_with_any_content() {
        let row = |id: &str, response: &str, offset: u32| {
            format!(
                r#"{{"id":"{id}","response":"{response}","provenance":{{"line_offset":{offset}}}}}"#
            )
        };
        assert_eq!(
            row_key(&row("a.jsonl:1", "x", 1)),
            row_key(&row("a.jsonl:2", "y", 1))
        );
        assert_ne!(
            row_key(&row("a.jsonl:1", "x", 1)),
            row_key(&row("b.jsonl:1", "x", 1))
        );
        assert_ne!(
            row_key(&row("a.jsonl:1", "x", 1)),
            row_key(&row("a.jsonl:1", "x", 2))
        );
    }
}
