//! The export and the state removed, truncated, edited or restored from an old copy, while the daemon runs and while
//! it does not: it stops with an error that names the remedy, or it continues by promise 6; never with a duplicate
//! row, never silently.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended};

const PAIR: &str = "2026/01/01/n.jsonl";

/// Damage to the files of a daemon; old copies of both are next to the lake.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    /// Other bytes in an early row, far before the end.
    EditRow,
    /// The last row's bytes changed in place.
    EditLastRow,
    AppendRow,
    AppendTornRow,
    /// Restored over the export, with its inode.
    RestoreExport,
    /// Restored in the export's place by rename.
    ReplaceExport,
    RestoreState,
    /// Restored by renames, under a daemon that continues with unlinked files.
    ReplaceState,
    RestoreBoth,
    RemoveState,
    RemoveStore,
    RemoveJournal,
    CutStore,
    CutJournal,
    EditStore,
    EditJournal,
}

const HARMS: [Harm; 16] = [
    Harm::EditRow,
    Harm::EditLastRow,
    Harm::AppendRow,
    Harm::AppendTornRow,
    Harm::RestoreExport,
    Harm::ReplaceExport,
    Harm::RestoreState,
    Harm::ReplaceState,
    Harm::RestoreBoth,
    Harm::RemoveState,
    Harm::RemoveStore,
    Harm::RemoveJournal,
    Harm::CutStore,
    Harm::CutJournal,
    Harm::EditStore,
    Harm::EditJournal,
];

impl Harm {
    fn act(self, bench: &Bench) {
        let export = bench.export();
        let (store, journal) = (
            bench.state_dir().join("state.redb"),
            bench.state_dir().join("journal"),
        );
        let old = |name: &str| bench.sibling("old").join(name);
        match self {
            Harm::EditRow => edit(&export, 200),
            Harm::EditLastRow => edit(&export, len_of(&export) - 40),
            Harm::AppendRow => append(&export, &first_row(&export)),
            Harm::AppendTornRow => append(&export, &first_row(&export)[..50]),
            Harm::RestoreExport => _ = fs::copy(old("sft_export.jsonl"), export).unwrap(),
            Harm::ReplaceExport => {
                fs::copy(old("sft_export.jsonl"), bench.sibling("again")).unwrap();
                fs::rename(bench.sibling("again"), export).unwrap();
            }
            Harm::RestoreState => restore_state(bench),
            Harm::ReplaceState => {
                copy_state(&bench.sibling("old"), &bench.sibling("again"));
                bench.remove_state();
                fs::rename(bench.sibling("again"), bench.state_dir()).unwrap();
            }
            Harm::RestoreBoth => {
                Harm::RestoreExport.act(bench);
                restore_state(bench);
            }
            Harm::RemoveState => bench.remove_state(),
            Harm::RemoveStore => fs::remove_file(store).unwrap(),
            Harm::RemoveJournal => fs::remove_file(journal).unwrap(),
            Harm::CutStore => cut(&store),
            Harm::CutJournal => cut(&journal),
            Harm::EditStore => (0..len_of(&store))
                .step_by(1_000)
                .for_each(|at| edit(&store, at)),
            Harm::EditJournal => edit(&journal, len_of(&journal) / 2),
        }
    }
}

fn len_of(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn edit(path: &Path, at: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"#", at).unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, len_of(path)).unwrap();
}

fn cut(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(len_of(path) / 2).unwrap();
}

fn first_row(export: &Path) -> Vec<u8> {
    let bytes = fs::read(export).unwrap();
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .next()
        .unwrap()
        .to_vec()
}

fn copy_state(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["state.redb", "journal"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn restore_state(bench: &Bench) {
    copy_state(&bench.sibling("old"), &bench.state_dir());
}

/// Creates a lake with forty rows, and copies of the daemon's files from when there were twenty.
fn lake() -> Bench {
    let bench = Bench::new();
    (0..20).for_each(|run| bench.append_run(PAIR, &format!("early {run}")));
    bench.once();
    copy_state(&bench.state_dir(), &bench.sibling("old"));
    fs::copy(
        bench.export(),
        bench.sibling("old").join("sft_export.jsonl"),
    )
    .unwrap();
    (0..20).for_each(|run| bench.append_run(PAIR, &format!("late {run}")));
    bench
}

/// Asserts that the next start continues, or refuses with a remedy, which is then applied; no row is lost or
/// duplicated.
fn check_next_start(bench: &Bench, harm: Harm, was_running: bool) {
    let what = format!("{harm:?}, running: {was_running}");
    let before = bench.export_bytes();
    let next = bench.run(&mut bench.command(&["run", "--once"]));
    if next.status.code() != Some(0) {
        next.check(1, &["distilld rebuild"]);
        assert_eq!(
            bench.export_bytes(),
            before,
            "{what}: refused, and written all the same"
        );
        bench.run(&mut bench.command(&["rebuild"])).check(0, &[]);
    }
    // An appended row is adopted: it may be one of the daemon's own that a lost state knew.
    let verified = bench.run(&mut bench.command(&["verify"])).status.code();
    let difference = bench.difference();
    assert_eq!(
        verified,
        Some(i32::from(difference.is_some())),
        "{what}: {difference:?}"
    );
    assert!(
        harm == Harm::AppendRow || difference.is_none(),
        "{what}: {difference:?}\n{}",
        next.stderr
    );
}

#[test]
fn files_damaged_while_no_daemon_runs_are_recovered_or_refused() {
    for harm in HARMS {
        let bench = lake();
        bench.once();
        harm.act(&bench);
        bench.append_run(PAIR, "last");
        check_next_start(&bench, harm, false);
    }
}

#[test]
fn files_damaged_under_a_running_daemon_are_detected_by_it_or_by_the_next_start() {
    for harm in HARMS {
        let bench = lake();
        let mut command = bench.command(&["run"]);
        command.env("DISTILLD_RECENT_SCAN_MS", "50");
        let mut daemon = bench.catch_up(&mut command);
        bench.wait_rows(&mut daemon, 40);
        harm.act(&bench);
        bench.append_run(PAIR, "last");
        let stops = !matches!(
            harm,
            // Its files are open, and their content is in memory too.
            Harm::RestoreState
                | Harm::CutStore
                | Harm::CutJournal
                | Harm::EditStore
                | Harm::EditJournal
        );
        if stops {
            bench.wait_end_or_stopped(daemon);
        } else {
            bench.wait_run(&mut daemon, "last");
            daemon.kill_9().unwrap();
        }
        check_next_start(&bench, harm, true);
    }
}

/// Two lakes, and a state that the first one's daemon left when it was killed: its journal has rows, and no checkpoint
/// was made.
struct Strangers {
    one: Bench,
    other: Bench,
    state_dir: PathBuf,
}

impl Strangers {
    fn new(rows_of_other: usize) -> Self {
        let (one, other) = (Bench::new(), Bench::new());
        let state_dir = one.sibling("state");
        for n in 0..10 {
            one.append_run("2026/01/01/alpha.jsonl", &format!("alpha {n}"));
        }
        for n in 0..rows_of_other {
            other.append_run("2026/01/01/beta.jsonl", &format!("beta {n}"));
        }
        let mut command = one.command(&["run"]);
        let mut daemon = one.start_command(command.arg("--state-dir").arg(&state_dir));
        one.wait_rows(&mut daemon, 10);
        daemon.kill_9().unwrap();
        Self {
            one,
            other,
            state_dir,
        }
    }

    fn run_other_with(&self, state_dir: &Path) -> Ended {
        let mut command = self.other.command(&["run", "--once"]);
        self.other.run(command.arg("--state-dir").arg(state_dir))
    }
}

#[test]
fn the_state_of_another_lake_is_set_aside() {
    for rows in [0, 12] {
        let lakes = Strangers::new(rows);
        let (one, other) = (&lakes.one, &lakes.other);
        lakes.run_other_with(&other.state_dir()).check(0, &[]);
        let before = other.export_bytes();
        let ended = lakes.run_other_with(&lakes.state_dir);
        ended.check(0, &["is of another lake", one.root().to_str().unwrap()]);
        assert_eq!(other.export_bytes(), before);
        other.assert_batch();
        // Back to the first lake: its rows exist, and are found.
        let mut command = one.command(&["run", "--once"]);
        let ended = one.run(command.arg("--state-dir").arg(&lakes.state_dir));
        ended.check(0, &["is of another lake"]);
        one.assert_batch();
    }
}

#[test]
fn a_journal_of_another_lake_overwrites_no_row() {
    // A longer export makes the state an older one of it, which is rebuilt.
    for (rows, is_whole, refuses) in [(8, true, true), (12, true, false), (12, false, false)] {
        let lakes = Strangers::new(rows);
        let other = &lakes.other;
        other.once();
        let before = other.export_bytes();
        // A copy: only its content identifies its origin.
        other.remove_state();
        copy_state(&lakes.state_dir, &other.state_dir());
        if !is_whole {
            fs::remove_file(other.state_dir().join("state.redb")).unwrap();
        }
        let ended = other.run(&mut other.command(&["run", "--once"]));
        if refuses {
            ended.check(
                1,
                &[
                    "retraction ledger",
                    "was changed by someone else",
                    "rebuild",
                ],
            );
        } else {
            ended.check(0, &[]);
            other.assert_batch();
        }
        assert_eq!(other.export_bytes(), before, "{rows}, {is_whole}");
    }
}

#[test]
fn the_journal_of_a_copy_of_the_lake_overwrites_no_row() {
    let bench = Bench::new();
    bench.append_run(PAIR, "both");
    bench.once();
    let kept = bench.sibling("kept");
    copy_state(&bench.state_dir(), &kept);
    let export = bench.export_bytes();
    let go_on = |run: &str| {
        let mut daemon = bench.start_caught_up();
        bench.append_run(PAIR, run);
        bench.wait_run(&mut daemon, run);
        daemon.kill_9().unwrap();
    };
    go_on("of the copy");
    let of_copy = bench.sibling("of-copy");
    copy_state(&bench.state_dir(), &of_copy);
    // The rows that the original wrote from the same point on.
    bench.remove_state();
    copy_state(&kept, &bench.state_dir());
    fs::write(bench.export(), &export).unwrap();
    for stream in Stream::BOTH {
        let path = bench.path(stream, PAIR);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("of the copy", "of itself")).unwrap();
    }
    bench.once();
    let before = bench.export_bytes();
    assert!(before.len() > export.len());
    bench.remove_state();
    copy_state(&of_copy, &bench.state_dir());
    let ended = bench.run(&mut bench.command(&["run", "--once"]));
    ended.check(1, &["is not the one in the journal", "rebuild"]);
    assert_eq!(bench.export_bytes(), before);
}

/// A lake with five runs, the last one ordered out, whose state is copied to `old`. Before a rebuild that replaces the export
/// it gets one more run, and before another its ledger is lost.
fn lake_before(rebuild: &[&str]) -> Bench {
    let bench = Bench::new();
    for run in ["a", "b", "c", "d", "out"] {
        bench.append_run(PAIR, run);
    }
    bench.once();
    bench.ask(&["retract", "out", "--reason", "r", "--json"]);
    copy_state(&bench.state_dir(), &bench.sibling("old"));
    if rebuild.contains(&"--state-only") {
        fs::remove_file(ledger_of(&bench)).unwrap();
    } else {
        bench.append_run(PAIR, "later");
        bench.once();
    }
    bench
}

fn ledger_of(bench: &Bench) -> PathBuf {
    bench.export().with_file_name("sft_retractions.jsonl")
}

/// Removes what rebuilds kept.
fn remove_kept(bench: &Bench) {
    for entry in fs::read_dir(bench.export().parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains(".before-rebuild") {
            fs::remove_file(path).unwrap();
        }
    }
}

fn effective(bench: &Bench) -> Vec<String> {
    let mut runs = bench.effective_runs();
    runs.sort();
    runs
}

/// Export and ledger are whole, and the ledger names the identity that the state has.
#[test]
fn a_state_from_before_a_rebuild_is_replaced() {
    let ways: [&[&[&str]]; 5] = [
        &[&["rebuild"]],
        &[&["rebuild", "--effective"]],
        &[&["rebuild", "--state-only"]],
        &[&["rebuild"], &["rebuild"]],
        &[&["rebuild", "--state-only"], &["rebuild"]],
    ];
    for way in ways {
        let bench = lake_before(way[0]);
        for command in way {
            bench.run(&mut bench.command(command)).check(0, &[]);
        }
        bench.once().check(0, &[]);
        let (before, rows) = (bench.export_bytes(), effective(&bench));
        assert!(!rows.contains(&"out".into()), "{way:?}: {rows:?}");
        restore_state(&bench);
        bench.once().check(0, &["a rebuild replaced"]);
        assert!(bench.export_bytes() == before, "{way:?}");
        assert_eq!(effective(&bench), rows, "{way:?}");
        bench.once().check(0, &[]);
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    }
}

/// Where the export may be the one of the state, and bytes of that are missing or changed, the start stops.
#[test]
fn a_state_from_before_a_rebuild_does_not_hide_that_an_export_is_cut() {
    type Act = fn(&Bench, &[u8]);
    // The second argument is the export before the rebuild.
    let acts: [(&str, &[&str], Act); 5] = [
        ("no proof", &["rebuild"], |bench, _| remove_kept(bench)),
        ("the old export, cut", &["rebuild"], |bench, rows| {
            remove_kept(bench);
            fs::write(bench.export(), &rows[..rows.len() / 2]).unwrap();
        }),
        ("the old export", &["rebuild"], |bench, rows| {
            // As it was when the state was copied: a longer one would be newer than the state.
            let last = rows[..rows.len() - 1]
                .iter()
                .rposition(|byte| *byte == b'\n');
            fs::write(bench.export(), &rows[..=last.unwrap()]).unwrap();
        }),
        ("cut", &["rebuild", "--state-only"], |bench, rows| {
            fs::write(bench.export(), &rows[..rows.len() / 2]).unwrap();
        }),
        ("edited", &["rebuild", "--state-only"], |bench, _| {
            edit(&bench.export(), bench.export_bytes().len() as u64 - 500);
        }),
    ];
    for (what, way, act) in acts {
        let bench = lake_before(way);
        let rows = bench.export_bytes();
        bench.run(&mut bench.command(way)).check(0, &[]);
        bench.once().check(0, &[]);
        act(&bench, &rows);
        let before = bench.export_bytes();
        restore_state(&bench);
        let ended = bench.run(&mut bench.command(&["run", "--once"]));
        assert_eq!(ended.status.code(), Some(1), "{what}: {}", ended.stderr);
        assert!(bench.export_bytes() == before, "{what}");
    }
}
