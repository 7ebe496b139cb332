//! A scorer with invented data: creates runs of every source class and verdict, and appends their lines to today's
//! day-files as real scorers do, one `write` per line. Does not read the output of distilld.

#![allow(dead_code, reason = "each example uses its part of it")]

pub mod scorer;

use std::fmt;

use distilld::platform::clock::{Clock as _, HostClock};
use distilld::record::timestamp::stamp;

/// The result that distilld must produce for an invented run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expected {
    /// A row.
    Exported,
    /// No row: rejected, or needs human review.
    Firewall,
    /// No row: an unknown category.
    UnknownCategory,
    /// No row: the model was an extractor.
    Role,
    /// No row: the text is blank.
    BlankText,
    /// No row: the line is incomplete.
    Malformed,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` respects the width that the caller specifies.
        f.pad(match self {
            Self::Exported => "exported",
            Self::Firewall => "firewalled",
            Self::UnknownCategory => "unknown category",
            Self::Role => "wrong role",
            Self::BlankText => "blank text",
            Self::Malformed => "malformed",
        })
    }
}

/// An invented run: its two lines, without their newlines.
#[derive(Debug, Clone)]
pub struct Run {
    /// Source class, which is also the stem of the day-file.
    pub class: &'static str,
    /// Id that joins the two lines.
    pub run_id: String,
    /// The expected result.
    pub expected: Expected,
    /// The evidence line.
    pub evidence: String,
    /// The scored line.
    pub scored: String,
}

/// Source class, model role, task and file of each class; the last class has no template of its own.
const CLASSES: [(&str, &str, &str, &str); 8] = [
    (
        "scrum_reviews",
        "reviewer",
        "review:",
        "crates/queryd/src/cache.rs",
    ),
    ("mode_experiments", "executor", "doc_drift", "docs/PRD.md"),
    (
        "auto_apply",
        "applier",
        "apply:",
        "crates/gateway/src/auth.rs",
    ),
    (
        "audits",
        "reviewer",
        "phase:storage",
        "crates/storaged/src/compact.rs",
    ),
    (
        "observer_reviews",
        "reviewer",
        "observe:",
        "crates/journald/src/append.rs",
    ),
    ("contract_analyses", "executor", "permit:10099", ""),
    ("outcomes", "executor", "scenario:staffing-", ""),
    ("llm_team_runs", "executor", "team:", "docs/DECISIONS.md"),
];

/// Typical model texts: several lines, quotes, tabs, code, other scripts.
const TEXTS: [&str; 6] = [
    "## Findings\n\n1. **High** (0.9): the guard is held across `await`; one slow client stalls all.\n2. **Low** (0.5): \"hits\" wraps after 2³² hits.\n",
    "-    if token == expected {\n+    if constant_time_eq(token, expected) {\n\t\treturn Ok(());\n     }\n",
    "Verdict: accept. The tests for a “wrong” and a \"short\" token both pass; C:\\temp is no longer written.",
    "Event 1: 6 of 6 placed [roster#118, #121].\r\nEvent 2: replaced in 22 min [calls#9].",
    "Recommend: hold. 🔴 Licence lapsed. 🟡 Two open inspections. 🟢 Insured.\nName on the permit: Müller Bau / ミュラー建設.",
    "{\"answer\": \"as JSON\", \"quotes\": \"\\\"nested\\\"\", \"lines\": [\"a\\nb\"]}",
];

const MODELS: [&str; 4] = [
    "qwen3-coder:480b",
    "deepseek-v3.1:671b",
    "kimi-k2:1t",
    "gpt-oss:120b",
];

/// Invents runs: the same seed gives the same runs.
#[derive(Debug)]
pub struct Inventor {
    random: fastrand::Rng,
    seed: u64,
    count: u64,
}

impl Inventor {
    /// Starts a sequence of runs.
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            seed,
            count: 0,
        }
    }

    /// Creates the next run. All classes and verdicts occur within a few dozen runs.
    pub fn run(&mut self, day: &str) -> Run {
        self.count += 1;
        let (class, role, task, file) = CLASSES[self.random.usize(..CLASSES.len())];
        let (expected, category) = self.verdict();
        let run_id = format!("{class}-{:x}-{}", self.seed, self.count);
        let sig_hash = format!("{:016x}", self.random.u64(..)).repeat(4);
        let role = if expected == Expected::Role {
            "extractor"
        } else {
            role
        };
        let text = self.text(expected);
        let provenance = |source_file: String| {
            serde_json::json!({
                "source_file": source_file, "line_offset": self.count, "sig_hash": sig_hash, "recorded_at": now(),
            })
        };
        let mut evidence = serde_json::json!({
            "run_id": run_id, "task_id": format!("{task}{}", self.count), "model_name": MODELS[self.count as usize % 4],
            "model_role": role, "text": text, "source_files": [file],
            "retrieved_context": {"matrix_corpora": ["prd", "adr"], "pathway_fingerprints_seen": self.count % 3},
            "provenance": provenance(format!("data/_kb/{class}.jsonl")),
        });
        if class == "contract_analyses" && self.count.is_multiple_of(2) {
            evidence["metadata"] = serde_json::json!({"contractor": "O'Hare & Sons Roofing"});
        }
        let scored = serde_json::json!({
            "evidence_run_id": run_id, "category": category, "reasons": ["invented"],
            "provenance": provenance(format!("data/evidence/{day}/{class}.jsonl")),
        });
        let mut scored = scored.to_string();
        if expected == Expected::Malformed {
            scored.truncate(scored.len() / 2);
        }
        Run {
            class,
            run_id,
            expected,
            evidence: evidence.to_string(),
            scored,
        }
    }

    fn verdict(&mut self) -> (Expected, &'static str) {
        match self.random.u8(..100) {
            0..45 => (Expected::Exported, "accepted"),
            45..65 => (Expected::Exported, "partially_accepted"),
            65..78 => (Expected::Firewall, "rejected"),
            78..86 => (Expected::Firewall, "needs_human_review"),
            86..89 => (Expected::UnknownCategory, "inconclusive"),
            89..95 => (Expected::Role, "accepted"),
            95..98 => (Expected::BlankText, "accepted"),
            _ => (Expected::Malformed, "accepted"),
        }
    }

    fn text(&mut self, expected: Expected) -> String {
        if expected == Expected::BlankText {
            return " \n\t\u{a0}".to_owned();
        }
        let paragraphs = self.random.usize(1..=4);
        (0..paragraphs)
            .map(|_| TEXTS[self.random.usize(..TEXTS.len())])
            .collect::<Vec<_>>()
            .join("\n\n")
    }
}

/// Returns the current day in UTC as a path: `2026/11/23`.
pub fn today() -> String {
    now()[..10].replace('-', "/")
}

/// Returns the current time in UTC: `2026-11-23T14:27:30.123Z`.
fn now() -> String {
    stamp(HostClock::new().wall_ms())
}
