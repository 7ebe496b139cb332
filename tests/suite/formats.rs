//! The bytes of all persisted formats. A change here requires a change of `checkpoint::FORMAT`: a state of the old
//! format is then rebuilt from the sources and the export, never misread.

use std::collections::BTreeMap;
use std::path::Path;

use fastrand::Rng;

use distilld::lake::identity::{SourceIdentity, SourceState, StatFingerprint};
use distilld::lake::read_digest::ReadDigest;
use distilld::pair::checkpoint::{FORMAT, PairCheckpoint, Review};
use distilld::pair::index::{
    DeadLetter, EvidenceLine, EvidenceLocation, Packed, PairId, ScoredLine, UnclaimedRow,
};
use distilld::pair::verdict::{LineTotals, Verdict, VerdictCounts, VerdictKind};
use distilld::platform::storage::Storage as _;
use distilld::record::keys::{RowKey, RunKey};
use distilld::store::export::ExportMark;
use distilld::store::journal::Journal;
use distilld::store::journal::batch::{Batch, BatchDelta, LedgerAppend, PairDelta};
use distilld::store::journal::error::JournalError;
use distilld::store::state::header::Header;

use crate::support::sim_disk::SimDisk;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn checkpoint() -> PairCheckpoint {
    let identity = SourceIdentity {
        device: 1,
        inode: 2,
        head_len_bytes: 3,
        head_hash: 4,
        tail_len_bytes: 5,
        tail_hash: 6,
    };
    let seen = StatFingerprint {
        len_bytes: 7,
        modified_ns: 8,
        changed_ns: -9,
    };
    let source = SourceState {
        identity: Some(identity),
        offset: 10,
        overlong_from: Some(11),
        records: 1,
        lines: 2,
        malformed: 1,
        seen,
        digest: ReadDigest::default(),
    };
    let counts = VerdictCounts::default().with(VerdictKind::Exported, 1);
    PairCheckpoint {
        path: b"2026/01/02/a.jsonl".to_vec(),
        scored: source,
        evidence: SourceState::default(),
        counts,
        waiting_since_s: 0,
        review: Review::CLAIMED,
    }
}

fn batch() -> Batch {
    let run = RunKey([7; 12]);
    let verdict = Verdict::Exported {
        row_offset: 0,
        evidence_digest: 9,
        superseded: false,
        contradicted: false,
    };
    let pair = PairDelta {
        id: PairId(3),
        checkpoint: checkpoint(),
        evidence: vec![EvidenceLine {
            run,
            place: EvidenceLocation {
                offset: 1,
                len_bytes: 2,
            },
        }],
        entries: vec![ScoredLine {
            run,
            offset: 4,
            len_bytes: 5,
            verdict,
        }],
        claims: vec![UnclaimedRow {
            row: RowKey([8; 12]),
            scope: PairId::ANY,
            row_offset: 6,
        }],
        dead_letters: vec![DeadLetter {
            in_evidence: true,
            offset: 1,
            len_bytes: 2,
            reason: "syntax".into(),
        }],
    };
    Batch {
        delta: BatchDelta {
            mark: ExportMark {
                len_bytes: 12,
                tail_len_bytes: 12,
                tail_hash: 13,
            },
            export_from: 12,
            pairs: vec![pair],
            ledger: Some(LedgerAppend {
                mark: ExportMark::default(),
                from: 14,
                lines: b"{}\n".to_vec(),
            }),
        },
        rows: b"{}\n".to_vec().into(),
    }
}

const CHECKPOINT: &str = include_str!("formats/checkpoint.hex");
const HEADER: &str = include_str!("formats/header.hex");
const FRAME: &str = include_str!("formats/frame.hex");

fn check(name: &str, pinned: &str, bytes: &[u8]) {
    assert_eq!(
        hex(bytes),
        pinned.trim(),
        "the form of {name} changed: raise FORMAT and pin the new one"
    );
}

#[test]
fn the_bytes_of_a_checkpoint_and_a_header_are_stable() {
    assert_eq!(FORMAT, 6);
    check(
        "checkpoint",
        CHECKPOINT,
        &postcard::to_stdvec(&checkpoint()).unwrap(),
    );
    let read: PairCheckpoint = postcard::from_bytes(&unhex(CHECKPOINT.trim())).unwrap();
    assert_eq!(read, checkpoint());
    check(
        "header",
        HEADER,
        &postcard::to_stdvec(&Header::new()).unwrap(),
    );
    assert_eq!(
        postcard::from_bytes::<Header>(&unhex(HEADER.trim())).unwrap(),
        Header::new()
    );
}

#[test]
fn impossible_counts_fail_only_the_account() {
    let mut damaged = checkpoint();
    damaged.counts[VerdictKind::BlankText] = u64::MAX;
    damaged.scored.malformed = u64::MAX;
    assert!(damaged.balance().is_err());
    let mut totals = LineTotals::default();
    totals.replace(&damaged.line_totals(), &checkpoint().line_totals());
    assert!(!totals.balanced());
    totals.replace(&checkpoint().line_totals(), &damaged.line_totals());
    totals.scored_lines = 1;
    totals.counts[VerdictKind::WrongRole] = u64::MAX;
    assert!(!totals.balanced());
}

#[test]
fn the_bytes_of_packed_entries_are_stable() {
    let evidence = EvidenceLine {
        run: RunKey([1; 12]),
        place: EvidenceLocation {
            offset: 0x0102,
            len_bytes: 3,
        },
    };
    let verdict = Verdict::Waiting {
        index: 4,
        since_s: 5,
    };
    let scored = ScoredLine {
        run: RunKey([1; 12]),
        offset: 0x0102,
        len_bytes: 3,
        verdict,
    };
    let mut bytes = Vec::new();
    evidence.pack(&mut bytes);
    assert_eq!(hex(&bytes), "010101010101010101010101000000010200000003");
    assert_eq!(EvidenceLine::unpack(&bytes), Some(evidence));
    bytes.clear();
    scored.pack(&mut bytes);
    assert_eq!(
        hex(&bytes),
        "0101010101010101010101010000000102000000030000000000000500000004"
    );
    assert_eq!(ScoredLine::unpack(&bytes), Some(scored));
}

#[test]
fn the_bytes_of_a_journal_frame_are_stable() {
    let path = Path::new("/journal");
    let disk = SimDisk::new();
    let mut journal = Journal::empty(disk.create(path).unwrap(), 1, 0);
    assert_eq!(journal.append(&batch()).unwrap(), 1);
    check("journal frame", FRAME, &disk.read(path).unwrap());

    let disk = SimDisk::new();
    disk.write_file(path, &unhex(FRAME.trim()));
    let mut read = Vec::new();
    Journal::replay(disk.open_write(path).unwrap(), 1, 0, |seq, batch| {
        read.push((seq, batch));
        Ok::<_, JournalError>(())
    })
    .unwrap();
    assert_eq!(read, [(1, batch())]);
}

/// Writes a journal of three batches to a disk; returns it and the length of each frame.
fn three_frames() -> (SimDisk, Vec<u64>) {
    let disk = SimDisk::new();
    let mut journal = Journal::empty(disk.create(Path::new("/journal")).unwrap(), 5, 10);
    let mut ends = Vec::new();
    for _ in 0..3 {
        journal.append(&batch()).unwrap();
        ends.push(journal.len_bytes());
    }
    (disk, ends)
}

fn replayed(disk: &SimDisk) -> Result<usize, JournalError> {
    let mut frames = 0;
    let file = disk.open_write(Path::new("/journal")).unwrap();
    Journal::replay(file, 5, 10, |_, _| {
        frames += 1;
        Ok::<_, JournalError>(())
    })
    .map(|_| frames)
}

#[test]
fn a_torn_last_frame_ends_the_journal_and_earlier_damage_is_an_error() {
    let (disk, ends) = three_frames();
    assert_eq!(replayed(&disk).unwrap(), 3);
    let whole = disk.read("/journal").unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let disk = SimDisk::new();
        disk.write_file("/journal", &damaged);
        let frames = replayed(&disk);
        let after_its_payload = ends
            .iter()
            .any(|end| damaged.len() as u64 > *end && at as u64 >= *end - 64)
            && frames.as_ref().is_ok_and(|frames| *frames == 3);
        if at as u64 >= ends[1] {
            assert!(
                frames.is_ok_and(|frames| frames == 2 || frames == 3),
                "byte {at}"
            );
        } else {
            assert!(
                after_its_payload || matches!(frames, Err(JournalError::Damaged(_))),
                "byte {at}: {frames:?}"
            );
        }
    }
    for len in 0..whole.len() as u64 {
        let (disk, _) = three_frames();
        disk.truncate("/journal", len);
        let frames = replayed(&disk).unwrap_or_else(|error| panic!("cut to {len}: {error}"));
        assert!(frames < 3, "cut to {len}");
    }
}

#[test]
fn frames_of_an_applied_epoch_are_not_replayed() {
    let (disk, _) = three_frames();
    let file = disk.open_write(Path::new("/journal")).unwrap();
    let mut journal = Journal::empty(file, 6, 13);
    journal.append(&batch()).unwrap();
    let mut seqs = Vec::new();
    Journal::replay(
        disk.open_write(Path::new("/journal")).unwrap(),
        6,
        13,
        |seq, _| {
            seqs.push(seq);
            Ok::<_, JournalError>(())
        },
    )
    .unwrap();
    assert_eq!(seqs, [14]);
    assert!(
        matches!(replayed(&disk), Err(JournalError::Damaged(_))),
        "a state older than its journal"
    );
}

/// Checkpoints begin, end and are lost with a restart at any place between frames of any length.
#[test]
fn frames_over_applied_ones_are_replayed_in_the_order_of_their_seqs() {
    let path = Path::new("/journal");
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        let disk = SimDisk::new();
        let mut journal = Journal::empty(disk.create(path).unwrap(), 5, 10);
        let (mut written, mut written_bytes) = (BTreeMap::new(), 0);
        let (mut mark, mut applied) = (None, 10);
        for _ in 0..80 {
            match (rng.u8(..6), mark) {
                (0, None) => mark = Some((journal.mark(), journal.seq())),
                (1, Some((begun, seq))) => {
                    journal.release(&begun);
                    (mark, applied) = (None, seq);
                }
                _ => {
                    let rows = vec![b'r'; rng.usize(..1_500)];
                    let batch = Batch {
                        rows: rows.into(),
                        ..batch()
                    };
                    let bytes_before = journal.len_bytes();
                    let seq = journal.append(&batch).unwrap();
                    written_bytes += journal.len_bytes() - bytes_before;
                    written.insert(seq, batch);
                }
            }
            let mut read = Vec::new();
            let file = disk.open_write(path).unwrap();
            let replayed = Journal::replay(file, 5, applied, |seq, batch| {
                read.push((seq, batch));
                Ok::<_, JournalError>(())
            });
            let replayed = replayed.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let expected = written.range(applied + 1..);
            assert!(
                read.iter().map(|(seq, batch)| (seq, batch)).eq(expected),
                "seed {seed}"
            );
            assert_eq!(replayed.len_bytes(), journal.len_bytes(), "seed {seed}");
            if rng.u8(..20) == 0 {
                (journal, mark) = (replayed, None);
            }
        }
        let len = disk.read(path).unwrap().len() as u64;
        assert!(len < written_bytes, "seed {seed}: no room was used again");
    }
}

#[test]
fn a_lost_frame_among_frames_over_applied_ones_is_an_error() {
    let path = Path::new("/journal");
    let disk = SimDisk::new();
    let mut journal = Journal::empty(disk.create(path).unwrap(), 5, 10);
    for _ in 0..3 {
        journal.append(&batch()).unwrap();
    }
    let (begun, frame_len) = (journal.mark(), journal.len_bytes() / 3);
    journal.append(&batch()).unwrap();
    journal.release(&begun);
    journal.append(&batch()).unwrap();
    let replayed = |disk: &SimDisk| {
        let mut seqs = Vec::new();
        Journal::replay(disk.open_write(path).unwrap(), 5, 13, |seq, _| {
            seqs.push(seq);
            Ok::<_, JournalError>(())
        })
        .map(|_| seqs)
    };
    assert_eq!(replayed(&disk).unwrap(), [14, 15]);
    // Frame 15 is at the start, frame 14 after three frames.
    for (at, seqs) in [(0, Some(vec![14])), (3 * frame_len, None)] {
        let mut damaged = disk.read(path).unwrap();
        damaged[at as usize + 40] ^= 0x10;
        let disk = SimDisk::new();
        disk.write_file("/journal", &damaged);
        match seqs {
            Some(seqs) => assert_eq!(replayed(&disk).unwrap(), seqs),
            None => assert!(matches!(replayed(&disk), Err(JournalError::Damaged(_)))),
        }
    }
}
