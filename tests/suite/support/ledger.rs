//! The fold of a retraction ledger, written from its contract: a second implementation, which the tests hold against the
//! daemon's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::naive::{NaiveBatch, multiset_difference};

/// The keys of a line, in their order.
const KEYS: [&str; 15] = [
    "schema_version",
    "seq",
    "op",
    "export",
    "export_len",
    "row_offset",
    "row_len",
    "row_hash",
    "id",
    "source_run_id",
    "cause",
    "day_file",
    "line_offset",
    "reason",
    "at",
];

/// One event that was read back.
#[derive(Debug, Clone)]
pub struct Event {
    pub op: String,
    pub cause: String,
    pub export: String,
    pub export_len: u64,
    pub row: Option<(u64, u64)>,
    pub run_id: String,
    /// The day-file that it names.
    pub day_file: String,
    /// Its time.
    pub at: String,
    /// End of its line in the ledger, bytes.
    pub end: u64,
}

/// Reads the whole lines of a ledger and checks each against the contract and against the export.
pub fn read_ledger(export: &[u8], ledger: &[u8]) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    let mut out = BTreeMap::<u64, bool>::new();
    let mut end = 0;
    for line in ledger.split_inclusive(|byte| *byte == b'\n') {
        if line.last() != Some(&b'\n') {
            break;
        }
        end += line.len() as u64;
        let text = String::from_utf8_lossy(line);
        let fault = |what: &str| Err(format!("{what}: {text}"));
        let Ok(value) = serde_json::from_slice::<Value>(line) else {
            return fault("no JSON");
        };
        let mut at = 0;
        for key in KEYS {
            match text[at..].find(&format!("\"{key}\":")) {
                Some(found) => at += found,
                None => return fault(&format!("the key {key} is missing or out of order")),
            }
        }
        let number = |key: &str| value[key].as_i64().unwrap_or(i64::MIN);
        let word = |key: &str| value[key].as_str().unwrap_or("?").to_owned();
        if number("seq") != events.len() as i64 {
            return fault("the seq is not the next one");
        }
        if (word("op") == "begin") != events.is_empty() {
            return fault("begin is not the first line alone");
        }
        let mut row = None;
        if number("row_offset") >= 0 {
            let (offset, len) = (number("row_offset") as usize, number("row_len") as usize);
            row = Some((offset as u64, len as u64));
            if let Some(bytes) = export.get(offset..offset + len) {
                let is_start = offset == 0 || export[offset - 1] == b'\n';
                let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
                if !is_start || newlines != 1 || bytes.last() != Some(&b'\n') {
                    return fault("it names no row");
                }
                let hash: String = Sha256::digest(bytes)[..16]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                if hash != word("row_hash") {
                    return fault("the row has another hash");
                }
                let of_row: Value = serde_json::from_slice(bytes).unwrap();
                if of_row["id"] != value["id"] || of_row["source_run_id"] != value["source_run_id"]
                {
                    return fault("the row has another id");
                }
            }
            let is_out = out.entry(offset as u64).or_default();
            match word("op").as_str() {
                "retract" if !*is_out => *is_out = true,
                "restore" if *is_out => *is_out = false,
                "note" => {}
                _ => return fault("the events of a row do not alternate"),
            }
        }
        events.push(Event {
            op: word("op"),
            cause: word("cause"),
            export: word("export"),
            export_len: number("export_len") as u64,
            row,
            run_id: word("source_run_id"),
            day_file: word("day_file"),
            at: word("at"),
            end,
        });
    }
    Ok(events)
}

/// Returns the rows of an export that the events leave in the effective set, each with its newline.
pub fn effective_rows(export: &[u8], events: &[Event]) -> Vec<u8> {
    let mut out = std::collections::BTreeSet::new();
    for event in events {
        match (event.op.as_str(), event.row) {
            ("retract", Some((offset, _))) => _ = out.insert(offset),
            ("restore", Some((offset, _))) => _ = out.remove(&offset),
            _ => {}
        }
    }
    let mut rows = Vec::new();
    let mut offset = 0;
    for row in export.split_inclusive(|byte| *byte == b'\n') {
        if !out.contains(&offset) {
            rows.extend_from_slice(row);
        }
        offset += row.len() as u64;
    }
    rows
}

/// Returns the difference between the effective set of the ledger and that of the naive batch, if there is one.
pub fn ledger_fault(export: &[u8], ledger: &[u8], naive: &NaiveBatch) -> Option<String> {
    let events = match read_ledger(export, ledger) {
        Ok(events) if events.is_empty() => return Some("there is no ledger".to_owned()),
        Ok(events) => events,
        Err(fault) => return Some(format!("ledger: {fault}")),
    };
    let effective = effective_rows(export, &events);
    multiset_difference(&effective, &naive.effective)
        .map(|fault| format!("effective rows: {fault}"))
}

/// Returns the stamp of the row that ends at a length of the export.
pub fn stamp_of_last_row(export: &[u8], export_len: u64) -> Option<String> {
    let rows = export.get(..usize::try_from(export_len).unwrap())?;
    let row = rows
        .strip_suffix(b"\n")?
        .rsplit(|byte| *byte == b'\n')
        .next()?;
    let row: Value = serde_json::from_slice(row).ok()?;
    Some(row["created_at"].as_str()?.to_owned())
}

/// A consumer of export and ledger that takes the length of the export first, as L3 of the ledger's invariants has it.
#[derive(Debug)]
pub struct LedgerReader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<(u64, u64)>, String>>,
}

impl LedgerReader {
    /// Starts to read the ledger of an export until it is ended.
    pub fn start(export: &Path) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (until, export) = (Arc::clone(&stop), export.to_owned());
        let thread = thread::spawn(move || {
            let ledger = export.with_file_name("sft_retractions.jsonl");
            let (mut seen, mut lengths) = (Vec::new(), Vec::new());
            while !until.load(Ordering::SeqCst) {
                let export_len = fs::metadata(&export).map_or(0, |file| file.len());
                let mut bytes = fs::read(&ledger).unwrap_or_default();
                bytes.truncate(memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1));
                if !bytes.starts_with(&seen) {
                    return Err(format!(
                        "{} bytes of the ledger were seen and changed",
                        seen.len()
                    ));
                }
                lengths.push((export_len, bytes.len() as u64));
                lengths.dedup();
                seen = bytes;
                // Without a pause the reader would take a processor from the daemon.
                thread::sleep(Duration::from_millis(2));
            }
            Ok(lengths)
        });
        Self { stop, thread }
    }

    /// Ends it. Returns its fault, or an event that it did not see although it saw a later row; `events` are all of the
    /// ledger.
    pub fn finish(self, events: &[Event]) -> Result<(), String> {
        self.stop.store(true, Ordering::SeqCst);
        let lengths = self.thread.join().map_err(|_| "it panicked".to_owned())??;
        for (export_len, ledger_len) in lengths {
            let is_missed =
                |event: &&Event| event.end > ledger_len && event.export_len < export_len;
            if let Some(event) = events.iter().find(is_missed) {
                return Err(format!(
                    "a reader of {export_len} bytes of the export saw {ledger_len} bytes of the ledger, without {event:?}"
                ));
            }
        }
        Ok(())
    }
}
