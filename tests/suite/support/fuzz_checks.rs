//! The properties that hold for any bytes that distilld reads: the bodies of the fuzz targets in `fuzz/`, which the
//! ordinary tests run over the stored corpus. Does not generate inputs.

mod history;
mod socket;

use distilld::record::final_check;
use distilld::record::keys;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use distilld::cli::args::GlobalArguments;
use distilld::config::{Environment, Settings};
use distilld::pair::checkpoint::PairCheckpoint;
use distilld::pair::index::{EvidenceLine, Packed, ScoredLine};
use distilld::platform::storage::{Storage as _, write_all_at};
use distilld::record::json::escape::Dialect;
use distilld::record::parse;
use distilld::record::parse::{JsonText, ParseError};
use distilld::record::row;
use distilld::store::journal::Journal;
use distilld::store::journal::batch::Batch;
use distilld::store::journal::error::JournalError;
use distilld::store::state::State;
use distilld::store::state::blocks;
use distilld::store::state::error::StateError;
use distilld::store::state::header::Header;
use xxhash_rust::xxh3::Xxh3;

use super::bench::{Bench, STATE_DIR};
use super::lake_gen::{Shape, Step, script};
use super::naive::{parse_evidence, parse_scored, repaired};
use super::naive_json::{self, Json};
use super::sim_disk::SimDisk;

pub use history::history;
pub use socket::socket;

/// The second reader is recursive; deeper input is checked with the product alone.
const DEPTH_MAX: usize = 200;

/// A fuzz target.
pub type Check = fn(&[u8]);

/// All targets by the names of their corpora.
pub const TARGETS: [(&str, Check); 8] = [
    ("line", line),
    ("row", row),
    ("journal", journal),
    ("decoders", decoders),
    ("state_file", state_file),
    ("configuration", configuration),
    ("socket", socket),
    ("history", history),
];

/// Checks that a line has the verdict and the fields that a second implementation of the same rules finds.
pub fn line(bytes: &[u8]) {
    let bytes = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let trimmed = parse::trim(bytes);
    let scored = parse::scored_run(trimmed);
    let evidence = parse::evidence(trimmed);
    let is_whole = parse::is_whole_value(bytes);
    let text = repaired(bytes);
    let text = text.trim();
    assert_eq!(trimmed.is_empty(), text.is_empty(), "blank or not");
    if trimmed.is_empty() || is_deep(bytes) {
        return;
    }
    assert_eq!(
        is_whole,
        naive_json::parse(text).is_some(),
        "a whole value or not"
    );
    match (scored, parse_scored(text)) {
        (Ok(found), Some(naive)) => {
            same(&found.evidence_run_id, &naive.run_id);
            same(&found.category, &naive.category);
            same(&found.provenance.source_file, &naive.provenance.source_file);
            same(&found.provenance.sig_hash, &naive.provenance.sig_hash);
            assert_eq!(found.provenance.line_offset, naive.provenance.line_offset);
        }
        (Err(ParseError::WrongType { .. }), Some(_)) if has_duplicate_key(text) => {}
        (found, naive) => assert_eq!(found.is_ok(), naive.is_some(), "scored run: {found:?}"),
    }
    match (evidence, parse_evidence(text)) {
        (Ok(found), Some(naive)) => {
            same(&found.run_id, &naive.run_id);
            same(&found.task_id, &naive.task_id);
            same(&found.model_name, &naive.model_name);
            same(&found.model_role, &naive.model_role);
            same(&found.text, &naive.text);
            assert_eq!(found.text.is_blank(), naive.text.trim().is_empty());
            let first = naive.source_files.first().map_or("", String::as_str);
            same(&found.first_source_file, first);
            let corpora: Vec<_> = found
                .matrix_corpora
                .iter()
                .map(|text| text.decode())
                .collect();
            assert_eq!(corpora, naive.corpora);
            assert_eq!(found.pathway_fingerprints_seen, naive.fingerprints);
            same(&found.provenance.source_file, &naive.source_file);
            let contractor = found.contractor.map(|name| name.decode().into_owned());
            assert_eq!(contractor, naive.contractor);
        }
        (Err(ParseError::WrongType { .. }), Some(_)) if has_duplicate_key(text) => {}
        (found, naive) => assert_eq!(found.is_ok(), naive.is_some(), "evidence: {found:?}"),
    }
}

/// Returns whether a key occurs twice: the second reader sees only the last value; the contract's exporters refuse a
/// line for the type of either.
fn has_duplicate_key(text: &str) -> bool {
    fn has_duplicate(value: &Json) -> bool {
        let Json::Object(members) = value else {
            return false;
        };
        let keys: BTreeSet<&String> = members.iter().map(|(key, _)| key).collect();
        keys.len() < members.len() || members.iter().any(|(_, value)| has_duplicate(value))
    }
    naive_json::parse(text).is_some_and(|value| has_duplicate(&value))
}

fn is_deep(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .filter(|byte| matches!(byte, b'[' | b'{'))
        .count()
        > DEPTH_MAX
}

/// Checks that a text equals the second reader's, and is written as `serde_json` writes it.
fn same(found: &JsonText<'_>, naive: &str) {
    assert_eq!(found.decode(), naive);
    let mut written = Vec::new();
    found.write_json(Dialect::Native, &mut written);
    assert_eq!(written, serde_json::to_vec(naive).unwrap());
}

/// Checks that any content of an export is read safely, and that no row passes that another reader calls forbidden.
pub fn row(bytes: &[u8]) {
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let summary = row::summary(line);
        if let Ok(summary) = &summary {
            assert!(keys::RowKey::from_row(line).is_ok());
            assert_eq!(Ok(summary.digest), row::digest_without_stamps(line));
        }
        let view = row::view(line);
        if is_deep(line) {
            continue;
        }
        let lossy = String::from_utf8_lossy(line);
        let naive = naive_json::parse(lossy.trim());
        if view.is_ok() {
            assert!(naive.is_some(), "a row that is no JSON has a view");
        }
        let category = naive.as_ref().map(|row| row.get("quality_score"));
        let accepted = ["accepted", "partially_accepted"];
        let is_accepted = matches!(category, Some(Json::Text(text)) if accepted.contains(&&**text));
        let is_native = naive.is_some() && native_keys(naive.as_ref());
        // It supports only native rows, and has to be correct for these.
        if is_native && !is_accepted {
            assert!(
                final_check::forbidden_in(line).is_some(),
                "a forbidden row passes"
            );
        }
    }
}

/// Returns whether the keys are those of a row, each once.
fn native_keys(row: Option<&Json>) -> bool {
    const KEYS: [&str; 9] = [
        "schema_version",
        "id",
        "instruction",
        "context",
        "response",
        "source_run_id",
        "quality_score",
        "created_at",
        "provenance",
    ];
    matches!(row, Some(Json::Object(members)) if members.iter().map(|(key, _)| key).eq(KEYS))
}

/// Checks that a journal of any bytes is read or refused, also after a valid frame, and with a valid frame's checksum.
pub fn journal(bytes: &[u8]) {
    replay(bytes);
    replay(&framed(1, 1, bytes));
    replay(&[valid_frame(), bytes].concat());
}

fn replay(bytes: &[u8]) {
    let disk = SimDisk::new();
    let path = Path::new("/journal");
    disk.write_file(path, bytes);
    let file = disk.open_write(path).unwrap();
    let mut seqs = Vec::new();
    let replayed = Journal::replay(file, 1, 0, |seq, batch| {
        for pair in &batch.delta.pairs {
            _ = pair.checkpoint.balance();
            _ = pair.overlay();
        }
        seqs.push(seq);
        Ok::<_, JournalError>(())
    });
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
    if let Ok(journal) = replayed {
        assert_eq!(journal.seq(), seqs.len() as u64);
    }
    let file = disk.open_write(path).unwrap();
    Journal::salvage(file, |_| Ok::<_, JournalError>(true)).unwrap();
}

/// Returns a frame as the journal writes it, with this payload.
fn framed(epoch: u64, seq: u64, payload: &[u8]) -> Vec<u8> {
    let mut hash = Xxh3::new();
    hash.update(&epoch.to_le_bytes());
    hash.update(&seq.to_le_bytes());
    hash.update(payload);
    let mut frame = valid_frame()[..4].to_vec();
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&epoch.to_le_bytes());
    frame.extend_from_slice(&seq.to_le_bytes());
    frame.extend_from_slice(&hash.digest().to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Returns the first frame of a journal, up to the start of the next one.
fn valid_frame() -> &'static [u8] {
    static FRAME: OnceLock<Vec<u8>> = OnceLock::new();
    FRAME.get_or_init(|| {
        let disk = SimDisk::new();
        let path = Path::new("/journal");
        let mut journal = Journal::empty(disk.create(path).unwrap(), 1, 0);
        journal.append(&Batch::default()).unwrap();
        let mut frame = disk.read(path).unwrap();
        frame.resize(journal.len_bytes() as usize, 0);
        frame
    })
}

/// Checks that blocks and records of any bytes are read or refused; decoded values encode to the same bytes.
pub fn decoders(bytes: &[u8]) {
    _ = blocks::open(bytes);
    packed::<EvidenceLine>(bytes);
    packed::<ScoredLine>(bytes);
    if let Ok(checkpoint) = postcard::from_bytes::<PairCheckpoint>(bytes) {
        _ = checkpoint.balance();
        let again = postcard::to_stdvec(&checkpoint).unwrap();
        assert_eq!(
            postcard::from_bytes::<PairCheckpoint>(&again),
            Ok(checkpoint)
        );
    }
    if let Ok(header) = postcard::from_bytes::<Header>(bytes) {
        _ = header.account.balanced();
        let again = postcard::to_stdvec(&header).unwrap();
        assert_eq!(postcard::from_bytes::<Header>(&again), Ok(header));
    }
}

fn packed<T: Packed>(bytes: &[u8]) {
    _ = blocks::entries_of::<T>(bytes);
    let block = blocks::seal(bytes);
    let sound = blocks::entries_of::<T>(&block);
    assert_eq!(sound.is_ok(), bytes.len().is_multiple_of(T::LEN));
    for entry in sound.unwrap_or_default().chunks_exact(T::LEN) {
        let Some(read) = T::unpack(entry) else {
            continue;
        };
        let packed = blocks::packed([read]);
        let again = T::unpack(&packed).expect("what was packed is unpacked");
        assert_eq!(blocks::packed([again]), packed);
    }
    let prefix = &bytes[..bytes.len().min(T::KEY_LEN)];
    let whole = bytes.len() / T::LEN * T::LEN;
    _ = blocks::matching::<T>(&bytes[..whole], prefix).count();
}

/// Checks that a state file with changed bytes is refused, or reads as the original: never otherwise, and without a
/// panic. Four bytes of input are one change: offset (3) and value (1); a single length truncates.
pub fn state_file(bytes: &[u8]) {
    static WRITTEN: OnceLock<(Vec<u8>, String)> = OnceLock::new();
    let (written, content) = WRITTEN.get_or_init(|| {
        let written = small_state();
        let content = content_of(&written).unwrap();
        (written, content)
    });
    let mut changed = written.clone();
    let changes = bytes.chunks_exact(4);
    if let [low, high] = *changes.remainder() {
        let len = usize::from(u16::from_le_bytes([low, high])) * written.len() / 65_536;
        changed.truncate(len);
    }
    for change in changes {
        let at = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize;
        let len = changed.len().max(1);
        if let Some(byte) = changed.get_mut(at % len) {
            *byte = change[3];
        }
    }
    if let Ok(found) = content_of(&changed) {
        assert_eq!(&found, content, "a changed state is read as another one");
    }
}

/// Returns the state of a small lake.
fn small_state() -> Vec<u8> {
    let mut bench = Bench::new(SimDisk::new());
    bench.open().unwrap();
    for step in &script(5, &Shape::steady(60)) {
        bench.step(step, true).unwrap();
    }
    bench.step(&Step::Quiet, true).unwrap();
    bench.engine.take().unwrap().checkpoint().unwrap();
    bench
        .disk
        .read(Path::new(STATE_DIR).join("state.redb"))
        .unwrap()
}

/// Returns the complete content of a state.
fn content_of(bytes: &[u8]) -> Result<String, StateError> {
    let disk = SimDisk::new();
    let path = Path::new("/state.redb");
    write_all_at(&*disk.create(path).unwrap(), bytes, 0).unwrap();
    let state = State::open(&disk, path)?;
    let view = state.view()?;
    let mut content = format!("{:?}", state.header());
    let mut ids = Vec::new();
    view.for_each_pair(|id, pair| {
        content.push_str(&format!("{id}: {pair:?}\n"));
        ids.push(id);
    })?;
    for id in ids {
        let mut runs = Vec::new();
        view.for_each_entry(id, |entry| {
            runs.push(entry.run);
            content.push_str(&format!("{entry:?}\n"));
        })?;
        for run in runs {
            content.push_str(&format!("{:?}\n", view.evidence(id, run)?));
        }
    }
    view.for_each_dead_letter(|id, letter| {
        content.push_str(&format!("{id}: {letter:?}\n"));
        true
    })?;
    Ok(content)
}

/// Checks that a configuration of any bytes results in settings or in an error that names the remedy.
pub fn configuration(bytes: &[u8]) {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| tempfile::tempdir().unwrap()).path();
    let file = dir.join(format!("{:?}.toml", std::thread::current().id()));
    fs::write(&file, bytes).unwrap();
    let flags = GlobalArguments {
        config: Some(file.clone()),
        root: Some(dir.to_owned()),
        ..GlobalArguments::default()
    };
    match Settings::load(&flags, &Environment::default()) {
        Ok(settings) => {
            let millis = [
                settings.settle,
                settings.recent_scan,
                settings.full_scan,
                settings.poll,
            ];
            assert!(millis.iter().all(|duration| !duration.is_zero()));
            assert!((1024..=256 << 20).contains(&settings.max_line_bytes));
            assert!((4096..=1 << 30).contains(&settings.checkpoint_bytes));
        }
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.contains(&*file.to_string_lossy()),
                "the error does not name the file: {message}"
            );
        }
    }
}
