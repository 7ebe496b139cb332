//! The lines of a random lake: records of every verdict, written in any JSON style, and lines that are not records.
//! Independent of where files are cut.

use fastrand::Rng;

use super::{EvidenceMode, Shape};

/// Malformed in both streams: a valid record of the other stream could change a run's evidence.
const MALFORMED: [&[u8]; 9] = [
    b"tru",
    b"[]",
    b"{",
    b"\"text\"",
    b"{\"evidence_run_id\":5,\"run_id\":[]}",
    b"{\"category\":\"accepted\",\"provenance\":{\"line_offset\":7.0}}x",
    b"{\"text\":5,\"category\":5}",
    b"{\"run_id\":\"a\tb\",\"category\":\"\t\"}",
    b"\xff\xfe",
];
/// Malformed lines with a beginning that is a complete value.
const MALFORMED_AFTER_A_VALUE: [&[u8]; 4] = [b"17", b"{} x", b"{}{}", b"null,"];
const BLANK: [&[u8]; 4] = [b"", b"   ", b"\r", b"\t\t "];

fn noise(rng: &mut Rng, shape: &Shape) -> Vec<u8> {
    match rng.u8(0..3) {
        0 => pick(rng, &BLANK).to_vec(),
        1 if !shape.plain_tails => pick(rng, &MALFORMED_AFTER_A_VALUE).to_vec(),
        _ => pick(rng, &MALFORMED).to_vec(),
    }
}

/// Returns a run id of a pair: the same in all pairs, because lines are never joined across pairs. One is empty, one
/// is not ASCII.
fn run_id(run: usize) -> String {
    match run {
        3 => String::new(),
        4 => "lauf-ü".to_owned(),
        _ => format!("run-{run}"),
    }
}

pub fn scored_lines(rng: &mut Rng, pair: &str, runs: usize, shape: &Shape) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for offset in 0..runs {
        match rng.u8(0..20) {
            0..2 => lines.push(noise(rng, shape)),
            2 => lines.push(pick(rng, &[&b"null"[..], b"{}"]).to_vec()),
            3 if !lines.is_empty() => lines.push(pick(rng, &lines).clone()),
            _ => {}
        }
        // Mostly in sequence; sometimes a repeated run, or one without evidence.
        let run = if rng.u8(0..5) == 0 {
            rng.usize(0..runs + 2)
        } else {
            offset
        };
        lines.push(scored_line(rng, pair, run, offset));
    }
    lines
}

fn scored_line(rng: &mut Rng, pair: &str, run: usize, offset: usize) -> Vec<u8> {
    let category = match rng.u8(0..20) {
        0..10 => "\"accepted\"",
        10..14 => "\"partially_accepted\"",
        14..16 => "\"rejected\"",
        16 => "\"needs_human_review\"",
        17 => "\"excellent\"",
        18 => "\"Rejected\"",
        _ => "null",
    };
    let provenance = match rng.u8(0..10) {
        0 => "null".to_owned(),
        _ => format!(
            r#"{{"source_file":"data/evidence/{pair}","line_offset":{offset},"sig_hash":"{:08x}","recorded_at":"2026-01-01T00:00:00Z"}}"#,
            rng.u32(..)
        ),
    };
    let run_id = format!("\"{}\"", run_id(run));
    object(
        rng,
        vec![
            ("evidence_run_id", run_id.into()),
            ("category", category.into()),
            ("provenance", provenance.into()),
        ],
    )
}

/// Returns the evidence of all runs: each run's lines in their order, the runs mixed.
pub fn evidence_lines(rng: &mut Rng, runs: usize, shape: &Shape) -> Vec<Vec<u8>> {
    let mut queues: Vec<Vec<Vec<u8>>> = (0..runs)
        .map(|run| run_evidence(rng, run, shape.mode))
        .collect();
    queues.iter_mut().for_each(|queue| queue.reverse());
    let mut lines = Vec::new();
    loop {
        queues.retain(|queue| !queue.is_empty());
        if queues.is_empty() {
            return lines;
        }
        // Near the front: evidence arrives roughly in the order of the runs.
        let next = rng.usize(0..queues.len().min(4));
        lines.extend(queues[next].pop());
        match rng.u8(0..15) {
            0 => lines.push(noise(rng, shape)),
            1 if shape.mode == EvidenceMode::Free => lines.push(b"null".to_vec()),
            _ => {}
        }
    }
}

fn run_evidence(rng: &mut Rng, run: usize, mode: EvidenceMode) -> Vec<Vec<u8>> {
    let id = run_id(run);
    let mut lines = Vec::new();
    let (unusable, usable) = match rng.u8(0..20) {
        0..2 => (0, 0),
        2..4 => (rng.usize(1..3), 0),
        4..7 => (rng.usize(1..3), rng.usize(1..3)),
        7..9 => (0, 2),
        _ => (0, 1),
    };
    for _ in 0..unusable {
        let fields = unusable_evidence(rng, run, &id);
        lines.push(object(rng, fields));
    }
    if unusable > 0 && id.is_empty() {
        lines.push(b"null".to_vec());
    }
    let mut form = usable_evidence(rng, run, &id);
    for _ in 0..usable {
        lines.push(object(rng, form.clone()));
        if mode == EvidenceMode::Free {
            form = if rng.bool() {
                usable_evidence(rng, run, &id)
            } else {
                unusable_evidence(rng, run, &id)
            };
        }
    }
    lines
}

type Fields = Vec<(&'static str, Vec<u8>)>;

fn unusable_evidence(rng: &mut Rng, run: usize, id: &str) -> Fields {
    let mut fields = usable_evidence(rng, run, id);
    let (key, values): (&str, &[&str]) = if rng.bool() {
        (
            "model_role",
            &["\"extractor\"", "\"\"", "null", "\"Executor\""],
        )
    } else {
        ("text", &["\"\"", "\" \\t\"", "\"\\u00a0\u{3000}\"", "null"])
    };
    fields.retain(|(name, _)| *name != key);
    fields.push((key, pick(rng, values).as_bytes().to_vec()));
    fields
}

fn usable_evidence(rng: &mut Rng, run: usize, id: &str) -> Fields {
    let stem = pick(
        rng,
        &[
            "scrum_reviews",
            "mode_experiments",
            "auto_apply",
            "audits",
            "observer_reviews",
            "contract_analyses",
            "outcomes",
            "unheard/of",
        ],
    );
    let task = pick(rng, &["\"phase:2\"", "\"permit:B-1\"", "\"t<1>\"", "null"]);
    let role = pick(rng, &["\"executor\"", "\"reviewer\"", "\"applier\""]);
    let mut fields: Fields = vec![
        ("run_id", format!("\"{id}\"").into()),
        ("task_id", (*task).into()),
        ("model_role", (*role).into()),
        ("text", text(rng, run)),
        (
            "provenance",
            format!(r#"{{"source_file":"data/_kb/{stem}.jsonl","line_offset":{run}}}"#).into(),
        ),
    ];
    let mut maybe = |key, values: &[&str]| {
        let value = pick(rng, values);
        if !value.is_empty() {
            fields.push((key, (*value).into()));
        }
    };
    maybe("model_name", &["", "\"m\"", "\"modèle\"", "null"]);
    maybe(
        "source_files",
        &[
            "",
            "[]",
            "[\"a.rs\",\"b.rs\"]",
            "[\"\"]",
            "[null,\"b\"]",
            "null",
        ],
    );
    maybe(
        "retrieved_context",
        &[
            "",
            "null",
            "{}",
            r#"{"matrix_corpora":["x","ý"],"pathway_fingerprints_seen":3}"#,
        ],
    );
    maybe(
        "metadata",
        &[
            "",
            "5",
            r#"{"contractor":"O'Neil & <Sons>"}"#,
            r#"{"contractor":7}"#,
        ],
    );
    fields
}

fn text(rng: &mut Rng, run: usize) -> Vec<u8> {
    let atoms: [&[u8]; 13] = [
        b" words ",
        "é✓".as_bytes(),
        "😀".as_bytes(),
        b"\\u00e9",
        b"\\ud83d\\ude00",
        b"\\ud83d ",
        b"\\n",
        b"\\\"",
        b"\\\\",
        b"\\u2028",
        b"<b>&",
        b"\\u0000",
        b"a\xff b",
    ];
    let mut literal = format!("\"of {run}:").into_bytes();
    let longest = if rng.u8(0..10) == 0 { 300 } else { 10 };
    for _ in 0..rng.usize(0..longest) {
        literal.extend_from_slice(pick::<&[u8]>(rng, &atoms));
    }
    literal.push(b'"');
    literal
}

/// Formats an object with its members in any order, additional white space and unknown members.
fn object(rng: &mut Rng, mut members: Fields) -> Vec<u8> {
    if rng.u8(0..4) == 0 {
        members.push((
            "unread",
            pick(rng, &["1e999", "[[{\"text\":[]}]]", "\"\\ud800\"", "null"])
                .as_bytes()
                .to_vec(),
        ));
    }
    rng.shuffle(&mut members);
    let (colon, comma) = *pick(
        rng,
        &[(&b":"[..], &b","[..]), (b": ", b", "), (b"\t:", b" ,\r")],
    );
    let mut line = b"{".to_vec();
    for (index, (key, value)) in members.into_iter().enumerate() {
        line.extend_from_slice(if index > 0 { comma } else { b"" });
        line.extend_from_slice(format!("\"{key}\"").as_bytes());
        line.extend_from_slice(colon);
        line.extend(value);
    }
    line.push(b'}');
    line
}

pub fn pick<'v, T>(rng: &mut Rng, values: &'v [T]) -> &'v T {
    &values[rng.usize(0..values.len())]
}
