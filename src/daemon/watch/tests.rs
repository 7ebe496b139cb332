//! Tests with real inotify on temporary directories. A case waits for an expected hint with a deadline; a case without
//! a hint waits only where silence is expected.

use crate::daemon::watch::*;
use crate::platform::storage::{ListedEntry, OsStorage, StorageFile};
use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_millis(100);

fn is_hinted(pending: &PendingWork, (stream, path): &(Stream, PathBuf)) -> bool {
    let day_file = (*stream, path.as_os_str().to_owned());
    pending.day_files.contains(&day_file)
}

/// The part of the engine that decides which day-files are read.
struct Listener {
    root: TempDir,
    wake: Arc<Inbox>,
    watch: Watch,
}

impl Listener {
    /// In a root that has no `data` yet.
    fn on_empty_root() -> Listener {
        Listener::on(tempfile::tempdir().unwrap(), WatchSetting::Events)
    }

    /// In a root with both bases and one day in each.
    fn on_lake() -> Listener {
        Listener::on_lake_listed_by(tempfile::tempdir().unwrap(), Arc::new(OsStorage))
    }

    fn on_lake_listed_by(root: TempDir, storage: Arc<dyn Storage>) -> Listener {
        for stream in Stream::ALL {
            fs::create_dir_all(base(root.path(), stream).join("2026/05/02")).unwrap();
        }
        let mut listener = Listener::on_storage(root, WatchSetting::Events, storage);
        assert_eq!(listener.arm_all(), []);
        assert_eq!(listener.watch.armed(), 8);
        listener
    }

    fn on(root: TempDir, setting: WatchSetting) -> Listener {
        Listener::on_storage(root, setting, Arc::new(OsStorage))
    }

    fn on_storage(root: TempDir, setting: WatchSetting, storage: Arc<dyn Storage>) -> Listener {
        let wake = Arc::new(Inbox::new());
        let watch = Watch::new(
            root.path(),
            setting,
            storage,
            Arc::new(Inotify),
            Arc::clone(&wake),
        )
        .unwrap();
        Listener { root, wake, watch }
    }

    fn path(&self, stream: Stream, relative: &str) -> PathBuf {
        base(self.root.path(), stream).join(relative)
    }

    fn append(&self, stream: Stream, relative: &str) {
        let path = self.path(stream, relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        append(&path);
    }

    fn arm_all(&mut self) -> Vec<(Stream, PathBuf)> {
        let mut found = Vec::new();
        loop {
            // A slice of one: every order of slices has to do.
            let progress = self.watch.arm_next(1);
            found.extend(progress.day_files);
            if progress.done {
                return found;
            }
        }
    }

    /// Handles hints until the day-file is to be read, because of a hint or of a listing.
    fn expect(&mut self, stream: Stream, relative: &str) {
        let want = (stream, PathBuf::from(relative));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pending = self.wake.wait_until(Some(deadline));
            assert!(!pending.is_empty(), "no hint for {want:?}");
            self.watch.apply(&pending);
            let found = self.arm_all();
            if is_hinted(&pending, &want) || found.contains(&want) {
                return;
            }
        }
    }

    /// Handles hints until there are none for a while.
    fn settle(&mut self) {
        loop {
            let pending = self.wake.wait_until(Some(Instant::now() + SILENCE));
            if pending.is_empty() {
                return;
            }
            self.watch.apply(&pending);
            self.arm_all();
        }
    }

    /// Appends to a day-file in an armed directory and expects a hint for it, without any listing.
    fn expect_heard(&mut self, stream: Stream, relative: &str) {
        self.settle();
        append(&self.path(stream, relative));
        let pending = self.wake.wait_until(Some(Instant::now() + PATIENCE));
        assert!(
            pending.day_files.contains(&(stream, relative.into())),
            "{relative}: {pending:?}"
        );
    }

    /// Appends to another day-file and expects hints for it alone: events are ordered, so hints of everything before
    /// have arrived by that time.
    fn expect_nothing_else(&self) {
        let sentinel = (Stream::Scored, "2026/05/02/sentinel.jsonl".into());
        append(&self.path(sentinel.0, "2026/05/02/sentinel.jsonl"));
        let pending = self.wake.wait_until(Some(Instant::now() + PATIENCE));
        let alone = PendingWork {
            day_files: BTreeSet::from([sentinel]),
            ..PendingWork::default()
        };
        assert_eq!(pending, alone);
    }
}

fn base(root: &Path, stream: Stream) -> PathBuf {
    root.join("data").join(stream.dir_name())
}

fn append(path: &Path) {
    let mut file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(b"{}\n").unwrap();
}

#[test]
fn an_append_is_heard() {
    let mut lake = Listener::on_lake();
    for stream in Stream::ALL {
        lake.append(stream, "2026/05/02/a.jsonl");
        lake.expect(stream, "2026/05/02/a.jsonl");
        lake.expect_heard(stream, "2026/05/02/a.jsonl");
    }
}

#[test]
fn a_day_file_put_in_place_by_rename_is_heard() {
    let mut lake = Listener::on_lake();
    let temporary = lake.path(Stream::Scored, "2026/05/02/a.tmp");
    append(&temporary);
    lake.settle();
    fs::rename(&temporary, lake.path(Stream::Scored, "2026/05/02/a.jsonl")).unwrap();
    lake.expect(Stream::Scored, "2026/05/02/a.jsonl");
}

#[test]
fn a_removed_day_file_is_heard() {
    let mut lake = Listener::on_lake();
    lake.append(Stream::Scored, "2026/05/02/a.jsonl");
    lake.settle();
    fs::remove_file(lake.path(Stream::Scored, "2026/05/02/a.jsonl")).unwrap();
    lake.expect(Stream::Scored, "2026/05/02/a.jsonl");
}

#[test]
fn a_day_file_in_a_fresh_year_month_and_day_is_always_found() {
    let mut lake = Listener::on_lake();
    for trial in 0..200 {
        let relative = format!("{}/01/02/a.jsonl", 2_100 + trial);
        lake.append(Stream::Scored, &relative);
        lake.expect(Stream::Scored, &relative);
    }
    lake.settle();
    assert_eq!(lake.watch.armed(), 8 + 200 * 3);
    lake.expect_heard(Stream::Scored, "2100/01/02/a.jsonl");
    lake.expect_heard(Stream::Scored, "2299/01/02/a.jsonl");
}

#[test]
fn fresh_days_are_found_while_their_writer_races_the_listener() {
    let mut lake = Listener::on_lake();
    let base = base(lake.root.path(), Stream::Evidence);
    let writer = std::thread::spawn(move || {
        for day in 0..100 {
            let day = base.join(format!("2026/06/{day:03}"));
            fs::create_dir_all(&day).unwrap();
            for name in ["a.jsonl", "b.jsonl"] {
                append(&day.join(name));
            }
        }
    });
    let mut missing: BTreeSet<_> = (0..100)
        .flat_map(|day| {
            ["a", "b"].map(|name| PathBuf::from(format!("2026/06/{day:03}/{name}.jsonl")))
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        let pending = lake.wake.wait_until(Some(deadline));
        assert!(!pending.is_empty(), "never found: {missing:?}");
        lake.watch.apply(&pending);
        let hinted = pending.day_files.into_iter().map(|(_, path)| path.into());
        for found in hinted.chain(lake.arm_all().into_iter().map(|(_, path)| path)) {
            missing.remove(&found);
        }
    }
    writer.join().unwrap();
}

#[test]
fn a_tree_moved_in_whole_is_found_and_heard_from_then_on() {
    let mut lake = Listener::on_lake();
    let outside = lake.root.path().join("outside");
    fs::create_dir_all(outside.join("07/08")).unwrap();
    append(&outside.join("07/08/a.jsonl"));
    fs::rename(&outside, lake.path(Stream::Scored, "2019")).unwrap();
    lake.expect(Stream::Scored, "2019/07/08/a.jsonl");
    lake.expect_heard(Stream::Scored, "2019/07/08/a.jsonl");
}

#[test]
fn a_tree_moved_within_the_lake_is_heard_under_its_new_name_alone() {
    let mut lake = Listener::on_lake();
    lake.append(Stream::Scored, "2026/05/02/a.jsonl");
    lake.settle();
    fs::rename(
        lake.path(Stream::Scored, "2026"),
        lake.path(Stream::Scored, "2027"),
    )
    .unwrap();
    lake.expect(Stream::Scored, "2027/05/02/a.jsonl");
    lake.expect_heard(Stream::Scored, "2027/05/02/a.jsonl");
    lake.settle();
    assert_eq!(lake.watch.armed(), 8);
}

#[test]
fn a_lake_that_begins_with_nothing_is_heard() {
    let mut lake = Listener::on_empty_root();
    assert_eq!(lake.arm_all(), []);
    assert_eq!(lake.watch.armed(), 0);
    lake.append(Stream::Evidence, "2026/05/02/a.jsonl");
    lake.expect(Stream::Evidence, "2026/05/02/a.jsonl");
    lake.expect_heard(Stream::Evidence, "2026/05/02/a.jsonl");
}

#[test]
fn a_base_created_after_the_start_is_heard() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(base(root.path(), Stream::Scored)).unwrap();
    let mut lake = Listener::on(root, WatchSetting::Events);
    lake.arm_all();
    lake.append(Stream::Evidence, "2026/05/02/a.jsonl");
    lake.expect(Stream::Evidence, "2026/05/02/a.jsonl");
    lake.expect_heard(Stream::Evidence, "2026/05/02/a.jsonl");
}

fn check_replaced(relative: &str) {
    let mut lake = Listener::on_lake();
    for trial in 0..8 {
        let day_file = format!("2026/05/02/{trial}.jsonl");
        let place = lake.path(Stream::Scored, relative);
        fs::rename(&place, lake.root.path().join(format!("away-{trial}"))).unwrap();
        lake.append(Stream::Scored, &day_file);
        lake.expect(Stream::Scored, &day_file);
        lake.expect_heard(Stream::Scored, &day_file);
        lake.settle();
        assert_eq!(lake.watch.armed(), 8, "{relative}");
    }
}

#[test]
fn the_directories_of_a_hint_are_pending_until_all_below_it_are_listed() {
    let mut lake = Listener::on_lake();
    assert_eq!(lake.watch.unarmed_fresh(), 0);
    fs::create_dir_all(lake.path(Stream::Scored, "2027/01/01")).unwrap();
    let pending = lake.wake.wait_until(Some(Instant::now() + PATIENCE));
    lake.watch.apply(&pending);
    for left in [1, 1, 1, 0] {
        assert_eq!(lake.watch.unarmed_fresh(), left);
        let _ = lake.watch.arm_next(1);
    }
}

#[test]
fn a_directory_renamed_away_and_made_again_is_heard() {
    check_replaced("2026/05/02");
    check_replaced("2026/05");
    check_replaced("2026");
}

#[test]
fn a_base_renamed_away_and_made_again_is_heard() {
    check_replaced("");
}

#[test]
fn a_directory_removed_and_made_again_is_heard() {
    let mut lake = Listener::on_lake();
    for trial in 0..8 {
        let day_file = format!("2026/05/02/{trial}.jsonl");
        fs::remove_dir_all(lake.path(Stream::Scored, "2026")).unwrap();
        lake.append(Stream::Scored, &day_file);
        lake.expect(Stream::Scored, &day_file);
        lake.expect_heard(Stream::Scored, &day_file);
    }
}

#[test]
fn a_removed_tree_leaves_no_watch() {
    let mut lake = Listener::on_lake();
    fs::remove_dir_all(lake.path(Stream::Scored, "2026")).unwrap();
    lake.settle();
    assert_eq!(lake.watch.armed(), 5);
}

#[test]
fn a_root_replaced_from_above_is_found_by_the_slow_scan() {
    let home = tempfile::tempdir().unwrap();
    let (root, away) = (home.path().join("lake"), home.path().join("away"));
    fs::create_dir_all(base(&root, Stream::Scored).join("2026/05/02")).unwrap();
    let wake = Arc::new(Inbox::new());
    let mut watch = Watch::new(
        &root,
        WatchSetting::Events,
        Arc::new(OsStorage),
        Arc::new(Inotify),
        Arc::clone(&wake),
    )
    .unwrap();
    assert!(watch.arm_next(100).done);
    fs::rename(&root, &away).unwrap();
    assert_eq!(watch.rearm_changed(100), Round::Restarted);
    assert!(watch.arm_next(100).done);
    assert_eq!(watch.armed(), 0);
    let day_file = base(&root, Stream::Scored).join("2026/05/02/a.jsonl");
    fs::create_dir_all(day_file.parent().unwrap()).unwrap();
    append(&day_file);
    assert_eq!(watch.rearm_changed(100), Round::Restarted);
    let found = watch.arm_next(100).day_files;
    assert_eq!(
        found,
        [(Stream::Scored, PathBuf::from("2026/05/02/a.jsonl"))]
    );
    while !wake.wait_until(Some(Instant::now() + SILENCE)).is_empty() {}
    append(&day_file);
    assert_eq!(
        wake.wait_until(Some(Instant::now() + PATIENCE))
            .day_files
            .len(),
        1
    );
}

#[test]
fn the_slow_scan_arms_again_what_was_replaced_unheard() {
    let mut lake = Listener::on_lake();
    // The events of the replacement are thrown away, as if they had been lost.
    fs::rename(
        lake.path(Stream::Scored, "2026/05"),
        lake.root.path().join("away"),
    )
    .unwrap();
    lake.append(Stream::Scored, "2026/05/02/a.jsonl");
    while !lake
        .wake
        .wait_until(Some(Instant::now() + SILENCE))
        .is_empty()
    {}
    let mut calls = 1;
    while lake.watch.rearm_changed(3) == Round::Continues {
        calls += 1;
    }
    assert!(calls > 1);
    assert!(
        lake.arm_all()
            .contains(&(Stream::Scored, PathBuf::from("2026/05/02/a.jsonl")))
    );
    lake.expect_heard(Stream::Scored, "2026/05/02/a.jsonl");
}

#[test]
fn a_slow_scan_of_an_unchanged_lake_queues_nothing() {
    let mut lake = Listener::on_lake();
    assert_ne!(lake.watch.rearm_changed(100), Round::Continues);
    assert!(!lake.watch.has_unarmed());
}

#[test]
fn a_directory_that_a_scan_met_is_armed_once() {
    let mut lake = Listener::on_lake();
    fs::create_dir_all(lake.path(Stream::Scored, "2020/01/01")).unwrap();
    while !lake
        .wake
        .wait_until(Some(Instant::now() + SILENCE))
        .is_empty()
    {}
    lake.watch.ensure(Stream::Scored, Path::new("2020"));
    lake.arm_all();
    lake.expect_heard(Stream::Scored, "2020/01/01/a.jsonl");
    lake.watch.ensure(Stream::Scored, Path::new("2020"));
    assert!(!lake.watch.has_unarmed());
}

#[test]
fn our_own_reads_wake_nobody() {
    let mut lake = Listener::on_lake();
    lake.append(Stream::Scored, "2026/05/02/a.jsonl");
    lake.settle();
    for _ in 0..50 {
        fs::read(lake.path(Stream::Scored, "2026/05/02/a.jsonl")).unwrap();
        for directory in ["", "2026", "2026/05", "2026/05/02"] {
            OsStorage
                .list(&lake.path(Stream::Scored, directory))
                .unwrap();
        }
        assert_ne!(lake.watch.rearm_changed(100), Round::Continues);
    }
    // The export and the state are written next to the streams.
    let export = lake.root.path().join("data/distilled/sft/sft_export.jsonl");
    fs::create_dir_all(export.parent().unwrap()).unwrap();
    append(&export);
    lake.expect_nothing_else();
}

#[test]
fn files_at_other_depths_wake_nobody() {
    let lake = Listener::on_lake();
    for stray in [
        "notes.jsonl",
        "2026/notes.jsonl",
        "2026/05/notes.jsonl",
        "2026/05/02/notes.txt",
    ] {
        append(&lake.path(Stream::Scored, stray));
    }
    append(&lake.root.path().join("README"));
    lake.expect_nothing_else();
}

#[test]
fn lost_events_arm_everything_again() {
    let mut lake = Listener::on_lake();
    fs::create_dir_all(lake.path(Stream::Scored, "2027/01/01")).unwrap();
    append(&lake.path(Stream::Scored, "2027/01/01/a.jsonl"));
    while !lake
        .wake
        .wait_until(Some(Instant::now() + SILENCE))
        .is_empty()
    {}
    lake.watch.apply(&PendingWork {
        rearm: true,
        ..PendingWork::default()
    });
    assert_eq!(
        lake.arm_all(),
        [(Stream::Scored, PathBuf::from("2027/01/01/a.jsonl"))]
    );
    assert_eq!(lake.watch.armed(), 11);
    lake.expect_heard(Stream::Scored, "2027/01/01/a.jsonl");
}

#[test]
fn links_below_a_base_are_not_descended() {
    let mut lake = Listener::on_lake();
    let outside = lake.root.path().join("outside");
    fs::create_dir_all(outside.join("05/02")).unwrap();
    append(&outside.join("05/02/a.jsonl"));
    std::os::unix::fs::symlink(&outside, lake.path(Stream::Scored, "2028")).unwrap();
    lake.settle();
    lake.watch.ensure(Stream::Scored, Path::new("2028"));
    assert_eq!(lake.arm_all(), []);
    assert_eq!(lake.watch.armed(), 8);
}

/// Reports to the watch the day-files of the day, as a scan does.
fn scan_day(listener: &mut Listener, day: &str) {
    let path = listener.path(Stream::Scored, day);
    let names = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<PathBuf> = names.map(|name| Path::new(day).join(name)).collect();
    names.sort_unstable();
    listener
        .watch
        .note_day(Stream::Scored, Path::new(day), names.len() as u64);
    for name in names {
        let stat = OsStorage
            .stat(&listener.path(Stream::Scored, name.to_str().unwrap()))
            .unwrap();
        listener
            .watch
            .ensure_linked(Stream::Scored, &name, &stat, false);
    }
}

#[test]
fn links_beyond_the_limit_are_counted_and_the_newest_have_the_watches() {
    let mut lake = Listener::on_lake();
    let outside = tempfile::tempdir().unwrap();
    let link = |lake: &Listener, day: &str, name: &str| {
        let target = outside
            .path()
            .join(format!("{}-{name}", day.replace('/', "-")));
        append(&target);
        fs::create_dir_all(lake.path(Stream::Scored, day)).unwrap();
        let name = lake.path(Stream::Scored, &format!("{day}/{name}.jsonl"));
        std::os::unix::fs::symlink(&target, name).unwrap();
        target
    };
    let (old, new) = ("2026/05/02", "2026/05/03");
    for n in 0..linked::LINKED_MAX {
        link(&lake, old, &n.to_string());
    }
    lake.settle();
    scan_day(&mut lake, old);
    assert_eq!(lake.watch.scanned_only(7).day_files, 0);
    let newest = [link(&lake, new, "a"), link(&lake, new, "b")];
    lake.settle();
    scan_day(&mut lake, new);
    for _ in 0..2 {
        let found = lake.watch.scanned_only(7);
        assert_eq!((found.day_files, found.within_ms), (2, 7));
        assert!(found.why.unwrap().contains("1024"));
        assert_eq!(lake.watch.mode(), Mode::Events);
        scan_day(&mut lake, old);
    }
    lake.settle();
    append(&newest[1]);
    let pending = lake.wake.wait_until(Some(Instant::now() + PATIENCE));
    let expected = (Stream::Scored, PathBuf::from("2026/05/03/b.jsonl"));
    assert!(is_hinted(&pending, &expected), "{pending:?}");
    // What vanished has neither a watch nor a place in the figure.
    for n in 0..10 {
        let name = format!("{old}/{n}.jsonl");
        fs::remove_file(lake.path(Stream::Scored, &name)).unwrap();
        lake.watch.forget_linked(Stream::Scored, Path::new(&name));
    }
    scan_day(&mut lake, old);
    assert_eq!(lake.watch.scanned_only(0).day_files, 0);
    fs::remove_dir_all(lake.path(Stream::Scored, old)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while lake
        .watch
        .linked
        .keys()
        .any(|(_, path)| path.starts_with(old))
    {
        let pending = lake.wake.wait_until(Some(deadline));
        assert!(!pending.is_empty(), "no hint for the removed day");
        lake.watch.apply(&pending);
    }
}

#[test]
fn of_two_day_files_that_are_the_same_file_one_is_counted() {
    let mut lake = Listener::on_lake();
    lake.append(Stream::Scored, "2026/05/02/a.jsonl");
    let name = |name| lake.path(Stream::Scored, name);
    fs::hard_link(name("2026/05/02/a.jsonl"), name("2026/05/02/b.jsonl")).unwrap();
    lake.settle();
    for _ in 0..2 {
        scan_day(&mut lake, "2026/05/02");
        assert_eq!(lake.watch.scanned_only(0).day_files, 1);
    }
}

#[test]
fn a_link_that_vanished_and_is_back_is_watched_again() {
    let mut lake = Listener::on_lake();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    append(&target);
    let name = lake.path(Stream::Scored, "2026/05/02/a.jsonl");
    std::os::unix::fs::symlink(&target, &name).unwrap();
    lake.settle();
    scan_day(&mut lake, "2026/05/02");
    fs::rename(&name, name.with_extension("away")).unwrap();
    fs::rename(name.with_extension("away"), &name).unwrap();
    lake.settle();
    let stat = OsStorage.stat(&name).unwrap();
    let relative = Path::new("2026/05/02/a.jsonl");
    lake.watch
        .ensure_linked(Stream::Scored, relative, &stat, true);
    append(&target);
    let pending = lake.wake.wait_until(Some(Instant::now() + PATIENCE));
    let expected = (Stream::Scored, relative.to_owned());
    assert!(is_hinted(&pending, &expected), "{pending:?}");
}

#[test]
fn without_events_all_day_files_are_counted_and_vanished_days_are_not() {
    let root = tempfile::tempdir().unwrap();
    let mut lake = Listener::on(root, WatchSetting::Poll);
    for day in ["2026/05/01", "2026/05/02"] {
        lake.append(Stream::Scored, &format!("{day}/a.jsonl"));
        scan_day(&mut lake, day);
    }
    let found = lake.watch.scanned_only(0);
    assert_eq!(
        (found.day_files, found.why.as_deref()),
        (2, Some("configured"))
    );
    let days = [PathBuf::from("2026/05/02")];
    lake.watch
        .keep_days(Stream::Scored, Path::new("2026/05"), &days);
    assert_eq!(lake.watch.scanned_only(0).day_files, 1);
    lake.watch.keep_days(Stream::Scored, Path::new(""), &[]);
    assert_eq!(lake.watch.scanned_only(0).day_files, 0);
}

#[test]
fn the_newest_days_are_armed_first_and_the_rest_in_slices() {
    let root = tempfile::tempdir().unwrap();
    for stream in Stream::ALL {
        for day in ["2025/12/31", "2026/04/30", "2026/05/01", "2026/05/02"] {
            let day = base(root.path(), stream).join(day);
            fs::create_dir_all(&day).unwrap();
            append(&day.join("a.jsonl"));
        }
    }
    let mut lake = Listener::on(root, WatchSetting::Events);
    // Base, year, month and day of both streams.
    let first = lake.watch.arm_next(8);
    assert!(!first.done);
    let found: Vec<_> = first
        .day_files
        .iter()
        .map(|(_, path)| path.to_str().unwrap())
        .collect();
    assert_eq!(found, ["2026/05/02/a.jsonl", "2026/05/02/a.jsonl"]);
    let rest = lake.arm_all();
    assert_eq!(rest.len(), 6);
    assert!(rest.last().unwrap().1.starts_with("2025"));
}

#[test]
fn polling_that_was_asked_for_lists_and_watches_nothing() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(base(root.path(), Stream::Scored).join("2026/05/02")).unwrap();
    append(&base(root.path(), Stream::Scored).join("2026/05/02/a.jsonl"));
    let mut lake = Listener::on(root, WatchSetting::Poll);
    assert_eq!(lake.arm_all().len(), 1);
    assert_eq!(lake.watch.armed(), 0);
    assert_eq!(lake.watch.rearm_changed(1), Round::Complete);
    assert!(!lake.watch.has_unarmed());
    assert_eq!(lake.watch.mode().to_string(), "polling: configured");
}

#[test]
fn a_new_day_takes_the_watch_of_the_oldest_when_watches_run_out() {
    let mut lake = Listener::on_lake();
    lake.watch.exhausted = true;
    assert!(
        lake.watch
            .give_up_older_than(&directory(Stream::Evidence, "2026/05/03"))
    );
    assert_eq!(lake.watch.armed(), 7);
    assert!(
        !lake
            .watch
            .give_up_older_than(&directory(Stream::Evidence, "2026/05/01"))
    );
    // The day that lost its watch is tried again, and there is no failure any more.
    lake.watch.unwatched_because(|| "watches ran out".into());
    assert_ne!(lake.watch.mode(), Mode::Events);
    assert_ne!(lake.watch.rearm_changed(100), Round::Continues);
    lake.arm_all();
    assert_eq!(lake.watch.armed(), 8);
    assert_eq!(lake.watch.mode(), Mode::Events);
}

/// A disk on which listing one directory fails while a flag is set.
#[derive(Debug)]
struct Denying {
    dir: PathBuf,
    denies: AtomicBool,
}

impl Lists for Denying {
    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        if dir == self.dir && self.denies.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        OsStorage.list(dir)
    }
}

#[test]
fn a_directory_without_permission_is_passed_over_and_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let day = base(root.path(), Stream::Scored).join("2026/05/02");
    let storage = Arc::new(ListedBy(Denying {
        dir: day.clone(),
        denies: AtomicBool::new(false),
    }));
    let mut lake = Listener::on_lake_listed_by(root, Arc::clone(&storage) as _);
    append(&day.join("a.jsonl"));
    storage.0.denies.store(true, Ordering::SeqCst);
    lake.watch.apply(&PendingWork {
        rearm: true,
        ..PendingWork::default()
    });
    assert_eq!(lake.arm_all(), []);
    assert_eq!((lake.watch.armed(), lake.watch.mode()), (7, Mode::Events));
    storage.0.denies.store(false, Ordering::SeqCst);
    assert_ne!(lake.watch.rearm_changed(100), Round::Continues);
    assert_eq!(lake.arm_all().len(), 1);
    assert_eq!(lake.watch.armed(), 8);
}

/// A disk on which a day-file appears in or below each directory at the end of its first listing: the worst possible
/// moment.
#[derive(Debug, Default)]
struct LateWriter {
    listed: std::sync::Mutex<BTreeSet<PathBuf>>,
}

impl LateWriter {
    fn write_below(&self, dir: &Path) {
        let day = PathBuf::from("2026/05/02");
        let base = dir.ancestors().find(|above| above.ends_with("scored-runs"));
        let Some(base) = base.filter(|_| self.listed.lock().unwrap().insert(dir.to_owned())) else {
            return;
        };
        // The existing names, and then names that do not exist yet.
        let depth = dir.strip_prefix(base).unwrap().components().count();
        let rest = day
            .components()
            .skip(depth)
            .map(|name| format!("{}-late-{depth}", name.as_os_str().display()));
        let day = dir.join(rest.collect::<PathBuf>());
        if !dir.to_str().unwrap().contains("late") {
            fs::create_dir_all(&day).unwrap();
            append(&day.join("late.jsonl"));
        }
    }
}

impl Lists for LateWriter {
    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        let listed = OsStorage.list(dir)?;
        self.write_below(dir);
        Ok(listed)
    }
}

/// How a disk lists directories.
trait Lists: std::fmt::Debug + Send + Sync {
    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>>;
}

/// The disk, but for its listings.
#[derive(Debug)]
struct ListedBy<L>(L);

impl<L: Lists> Storage for ListedBy<L> {
    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        self.0.list(dir)
    }
    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        OsStorage.stat(path)
    }
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        OsStorage.canonicalize(path)
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        OsStorage.open_read(path)
    }
    fn open_read_below(&self, base: &Path, below: &Path) -> io::Result<Arc<dyn StorageFile>> {
        OsStorage.open_read_below(base, below)
    }
    fn stat_below(&self, base: &Path, below: &Path) -> io::Result<FileStat> {
        OsStorage.stat_below(base, below)
    }
    fn list_below(&self, base: &Path, below: &Path) -> io::Result<Vec<ListedEntry>> {
        self.0.list(&base.join(below))
    }
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        OsStorage.open_write(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        OsStorage.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsStorage.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsStorage.remove_file(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsStorage.create_dir_all(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsStorage.sync_dir(dir)
    }
}

#[test]
fn what_appears_right_after_a_listing_is_found() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(base(root.path(), Stream::Scored).join("2026/05/02")).unwrap();
    let storage = Arc::new(ListedBy(LateWriter::default()));
    let mut lake = Listener::on_storage(root, WatchSetting::Events, storage);
    let mut missing = BTreeSet::from(
        [
            "2026-late-0/05-late-0/02-late-0/late.jsonl",
            "2026/05-late-1/02-late-1/late.jsonl",
            "2026/05/02-late-2/late.jsonl",
            "2026/05/02/late.jsonl",
        ]
        .map(PathBuf::from),
    );
    for (_, found) in lake.arm_all() {
        missing.remove(&found);
    }
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        let pending = lake.wake.wait_until(Some(deadline));
        assert!(!pending.is_empty(), "never found: {missing:?}");
        lake.watch.apply(&pending);
        let hinted = pending.day_files.into_iter().map(|(_, path)| path.into());
        for found in hinted.chain(lake.arm_all().into_iter().map(|(_, path)| path)) {
            missing.remove(&found);
        }
    }
}
