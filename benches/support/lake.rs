//! Creates the lakes of the benchmarks from a seed, so that two machines measure the same bytes, in the shape of real
//! day-files. Computes the expected number of rows without reading distilld's output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Incremented when the bytes created for the same plan change, so that no older lake is reused.
const GENERATOR_VERSION: u32 = 1;
/// Day-files of one day: one for each source class; the last class has no template of its own.
pub const CLASSES: [&str; 8] = [
    "scrum_reviews",
    "mode_experiments",
    "auto_apply",
    "audits",
    "observer_reviews",
    "contract_analyses",
    "outcomes",
    "drift_reports",
];
/// Additional day-files for each day of a long history, of classes without a template.
const MORE_CLASSES: [&str; 8] = [
    "scrum_reviews_v2",
    "mode_experiments_v2",
    "auto_apply_v2",
    "audits_v2",
    "observer_reviews_v2",
    "contract_analyses_v2",
    "outcomes_v2",
    "drift_reports_v2",
];
/// Every generated month has this many days.
const DAYS_A_MONTH: u32 = 28;

/// The parameters of a lake. Equal parameters give equal bytes.
#[derive(Debug, Clone, Copy)]
pub struct LakePlan {
    /// Pairs of day-files, eight a day.
    pub pairs: u32,
    /// Records of each pair.
    pub records: u32,
    /// Mean length of an evidence text in the file, in bytes; lengths range from half to one and a half of it.
    pub text_bytes: u32,
    /// Seed of the random generator.
    pub seed: u64,
}

/// A created lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LakeFacts {
    /// Scored runs in it, each with its evidence.
    pub records: u64,
    /// Those that earn a row.
    pub rows: u64,
    /// Length of all day-files of both kinds.
    pub input_bytes: u64,
}

/// A lake on disk.
#[derive(Debug)]
pub struct Lake {
    /// The value for `--root`.
    pub root: PathBuf,
    /// The counts of its content.
    pub facts: LakeFacts,
    /// Set if an earlier run created it.
    pub reused: bool,
}

/// Returns the lake of this plan in `dir`: that of an earlier run if its plan was the same, otherwise a new one in its
/// place. The output of distilld for an earlier lake is removed.
pub fn prepare(dir: &Path, plan: &LakePlan) -> io::Result<Lake> {
    let root = dir.join("root");
    let manifest = dir.join("lake.txt");
    let head = format!("lake v{GENERATOR_VERSION} {plan:?}");
    if let Some(facts) = fs::read_to_string(&manifest)
        .ok()
        .and_then(|text| facts_in(&text, &head))
    {
        super::remove_tree(&root.join("data/distilled"))?;
        return Ok(Lake {
            root,
            facts,
            reused: true,
        });
    }
    super::remove_tree(dir)?;
    let facts = write_lake(&root, plan)?;
    // Written last, so that an incomplete lake is created again.
    fs::write(
        &manifest,
        format!(
            "{head}\n{} {} {}\n",
            facts.records, facts.rows, facts.input_bytes
        ),
    )?;
    Ok(Lake {
        root,
        facts,
        reused: false,
    })
}

fn facts_in(manifest: &str, head: &str) -> Option<LakeFacts> {
    let (first, rest) = manifest.split_once('\n')?;
    let mut numbers = rest.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    let facts = LakeFacts {
        records: next()?,
        rows: next()?,
        input_bytes: next()?,
    };
    (first == head).then_some(facts)
}

fn write_lake(root: &Path, plan: &LakePlan) -> io::Result<LakeFacts> {
    let mut facts = LakeFacts {
        records: 0,
        rows: 0,
        input_bytes: 0,
    };
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let (mut evidence, mut scored) = (Vec::new(), Vec::new());
    for number in 0..plan.pairs {
        let pair = PairPath::numbered(number);
        evidence.clear();
        scored.clear();
        for line in 0..plan.records {
            let run_id = format!("{number:05x}{line:07x}-{:016x}", rng.u64(..));
            let record = Record::any(&mut rng, run_id, plan.text_bytes);
            record.write_evidence(&pair, line, &mut evidence);
            record.write_scored(&pair, line, &mut scored);
            facts.rows += u64::from(record.earns_row());
        }
        pair.make_dirs(root)?;
        File::create(pair.evidence(root))?.write_all(&evidence)?;
        File::create(pair.scored(root))?.write_all(&scored)?;
        facts.records += u64::from(plan.records);
        facts.input_bytes += (evidence.len() + scored.len()) as u64;
    }
    Ok(facts)
}

/// The path that two day-files share below their trees.
#[derive(Debug, Clone)]
pub struct PairPath {
    day: String,
    class: &'static str,
}

impl PairPath {
    /// Returns the pair of this number: eight a day, from the first day of 2026 on.
    pub fn numbered(number: u32) -> Self {
        let classes = CLASSES.len() as u32;
        let day = number / classes;
        let (year, month) = (
            2026 + day / (12 * DAYS_A_MONTH),
            day / DAYS_A_MONTH % 12 + 1,
        );
        Self::on(
            &format!("{year}/{month:02}/{:02}", day % DAYS_A_MONTH + 1),
            number as usize,
        )
    }

    /// Returns the pair of this number in a long history: sixteen a day, from the first day of 2001 on.
    pub fn of_history(number: u32) -> Self {
        let (day, class) = (number / 16, number as usize % 16);
        let (year, month) = (
            2001 + day / (12 * DAYS_A_MONTH),
            day / DAYS_A_MONTH % 12 + 1,
        );
        Self {
            day: format!("{year}/{month:02}/{:02}", day % DAYS_A_MONTH + 1),
            class: match class.checked_sub(CLASSES.len()) {
                None => CLASSES[class],
                Some(more) => MORE_CLASSES[more],
            },
        }
    }

    /// Returns the pair of a class on a day, `YYYY/MM/DD`.
    pub fn on(day: &str, class: usize) -> Self {
        Self {
            day: day.to_owned(),
            class: CLASSES[class % CLASSES.len()],
        }
    }

    fn at(&self, root: &Path, tree: &str) -> PathBuf {
        root.join("data")
            .join(tree)
            .join(&self.day)
            .join(format!("{}.jsonl", self.class))
    }

    /// Returns the path of the evidence day-file.
    pub fn evidence(&self, root: &Path) -> PathBuf {
        self.at(root, "evidence")
    }

    /// Returns the path of the scored day-file.
    pub fn scored(&self, root: &Path) -> PathBuf {
        self.at(root, "scored-runs")
    }

    /// Creates the directories of both day-files.
    pub fn make_dirs(&self, root: &Path) -> io::Result<()> {
        for tree in ["evidence", "scored-runs"] {
            fs::create_dir_all(root.join("data").join(tree).join(&self.day))?;
        }
        Ok(())
    }
}

/// Appends `line` with one `write`, as a scorer does; returns the time at which the call returned, before the file is
/// closed.
pub fn append(path: &Path, line: &[u8]) -> io::Result<std::time::Instant> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(line)?;
    Ok(std::time::Instant::now())
}

/// A run, before it is written as two lines.
#[derive(Debug)]
pub struct Record {
    run_id: String,
    category: &'static str,
    role: &'static str,
    text: String,
    number: u32,
}

impl Record {
    /// Creates a random run: 76 of 100 pass the firewall, 5 of 100 are extractions.
    pub fn any(rng: &mut fastrand::Rng, run_id: String, text_bytes: u32) -> Self {
        let category = match rng.u32(..100) {
            0..61 => "accepted",
            61..76 => "partially_accepted",
            76..94 => "rejected",
            _ => "needs_human_review",
        };
        let role = match rng.u32(..100) {
            0..60 => "executor",
            60..85 => "reviewer",
            85..95 => "applier",
            _ => "extractor",
        };
        Self {
            category,
            role,
            ..Self::good(rng, run_id, text_bytes)
        }
    }

    /// Creates a run that earns a row.
    pub fn good(rng: &mut fastrand::Rng, run_id: String, text_bytes: u32) -> Self {
        let text = text(rng, text_bytes as usize);
        Self {
            run_id,
            category: "accepted",
            role: "executor",
            text,
            number: rng.u32(..100_000),
        }
    }

    /// Returns whether the run becomes a sample.
    pub fn earns_row(&self) -> bool {
        matches!(self.category, "accepted" | "partially_accepted") && self.role != "extractor"
    }

    /// Writes its evidence line, newline included.
    pub fn write_evidence(&self, pair: &PairPath, line: u32, out: &mut Vec<u8>) {
        let Self {
            run_id,
            role,
            text,
            number,
            ..
        } = self;
        let class = pair.class;
        let task = match class {
            "audits" => format!("phase:{}", number % 40),
            "contract_analyses" => format!("permit:{number:06}"),
            _ => format!("task-{number:05}"),
        };
        let model = [
            "qwen3-coder:480b",
            "kimi-k2:1t",
            "gpt-oss:120b",
            "deepseek-v3.1:671b",
        ][*number as usize % 4];
        let contractor = if class == "contract_analyses" {
            r#","contractor":"Meyer & Söhne Bau""#
        } else {
            ""
        };
        let written = writeln!(
            out,
            r#"{{"run_id":"{run_id}","task_id":"{task}","timestamp":"{}T08:{:02}:{:02}.000Z","schema_version":1,"model_name":"{model}","model_provider":"ollama_cloud","model_role":"{role}","input_hash":"{:016x}","source_files":["crates/lakehouse/src/{class}_{}.rs"],"retrieved_context":{{"matrix_corpora":["lakehouse_arch_v1","{class}_v2"],"pathway_fingerprints_seen":{}}},"latency_ms":{},"cost_usd":0.0031,"metadata":{{"attempt":{}{contractor}}},"text":"{text}","provenance":{{"source_file":"data/_kb/{class}.jsonl","line_offset":{line},"sig_hash":"{:016x}{:016x}","recorded_at":"{}T08:00:00.000Z"}}}}"#,
            pair.day.replace('/', "-"),
            number / 60 % 60,
            number % 60,
            u64::from(*number).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            number % 97,
            number % 5,
            number % 9_000 + 700,
            number % 3 + 1,
            u64::from(*number).wrapping_mul(0xC2B2_AE3D_27D4_EB4F),
            u64::from(line).wrapping_mul(0x1656_67B1_9E37_79F9),
            pair.day.replace('/', "-"),
        );
        written.expect("a vector takes all bytes");
    }

    /// Writes its scored line, newline included.
    pub fn write_scored(&self, pair: &PairPath, line: u32, out: &mut Vec<u8>) {
        let Self {
            run_id,
            category,
            number,
            ..
        } = self;
        let (day, class) = (&pair.day, pair.class);
        let written = writeln!(
            out,
            r#"{{"schema_version":1,"evidence_run_id":"{run_id}","evidence_task_id":"task-{number:05}","category":"{category}","reasons":["anchor grounding {}%","verdict {category}"],"scored_at":"{}T09:00:00.000Z","scorer_version":"v1.4.0","provenance":{{"source_file":"data/evidence/{day}/{class}.jsonl","line_offset":{line},"sig_hash":"{:016x}{:016x}","recorded_at":"{}T09:00:00.000Z"}}}}"#,
            number % 100,
            day.replace('/', "-"),
            u64::from(*number).wrapping_mul(0x27D4_EB2F_1656_67C5),
            u64::from(line).wrapping_mul(0x9E37_79B1_85EB_CA87),
            day.replace('/', "-"),
        );
        written.expect("a vector takes all bytes");
    }
}

/// Fragments of model output, escaped for a JSON string.
const PIECES: [&str; 32] = [
    "The reducer drops the last batch when the channel closes early, ",
    "which loses up to one flush interval of acknowledged writes. ",
    r#"The PRD calls this \"exactly once\" in section 4. "#,
    r"\n\n## Finding\n\n",
    r"\n- severity: high\n- confidence: 0.87\n",
    r"\n- severity: low\n- confidence: 0.42\n",
    r"\n```rust\nlet rows = batch.iter().filter(|row| row.len() > 0).count();\n```\n",
    r#"\n```json\n{\"verdict\": \"accept\", \"score\": 0.91}\n```\n"#,
    "and is only reachable through the compaction path ",
    r"\u2014 see the change proposal \u2014 ",
    "— as the reviewer of phase 12 said — ",
    r"if a < b && c > d {\n\treturn Err(Error::Stale);\n}\n",
    "No caller checks the returned length. ",
    "The lock is held over an await point, so a slow reader stalls every writer behind it. ",
    "Tests cover the happy path alone. ",
    r"C:\\Users\\build\\lakehouse ",
    "A patch of six lines is enough: ",
    r"@@ -41,6 +41,7 @@ fn flush(&mut self)\n-    self.rows.clear();\n+    self.commit()?;\n+    self.rows.clear();\n",
    "The permit names two parcels, and only one of them has a survey on file. ",
    r"Risk markers: \u26a0 lien, \u26a0 expired insurance. ",
    "Größe und Lage der Fläche sind plausibel. ",
    r"d\u00e9j\u00e0 vu: the same defect was reported in the run before. ",
    "監査の結果は良好です。",
    r"\ud83d\udd25 hot path. ",
    "retrieval returned four corpora, two of them stale, ",
    "so the anchor grounding is weak here. ",
    "Recommend: merge after the migration has run on staging. ",
    r"\n1. Read the manifest.\n2. Compare row counts.\n3. Swap the pointer.\n",
    "The estimate of 3.2 ms per call does not hold under load; measured 11.7 ms at the 99th percentile. ",
    "Verdict: cycle. ",
    r#"The log says \"connection reset by peer\" 14 times within one minute. "#,
    "This is consistent with the earlier audit. ",
];

/// Returns invented model output, escaped for a JSON string.
pub fn text(rng: &mut fastrand::Rng, mean_bytes: usize) -> String {
    let len_bytes = mean_bytes / 2 + rng.usize(..=mean_bytes);
    let mut text = String::with_capacity(len_bytes + 128);
    text.push_str("Reviewed. ");
    while text.len() < len_bytes {
        text.push_str(PIECES[rng.usize(..PIECES.len())]);
    }
    text
}
