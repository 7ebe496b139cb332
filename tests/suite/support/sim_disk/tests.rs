//! The semantics on which the crash tests rely, one by one.

use std::io::ErrorKind;
use std::path::Path;

use distilld::platform::storage::{FileKind, Storage, StorageFile, read_full_at, write_all_at};

use super::fault::Partly;
use super::*;

fn file_with(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn StorageFile> {
    let path = Path::new(path);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    let file = disk.create(path).unwrap();
    write_all_at(&*file, bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
    file
}

fn error_of<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

#[test]
fn written_bytes_are_read_back() {
    let disk = SimDisk::new();
    let file = file_with(&disk, "/d/f", b"hello");
    write_all_at(&*file, b"xyz", 7).unwrap();
    let mut buf = [9; 16];
    assert_eq!(read_full_at(&*file, &mut buf, 3).unwrap(), 7);
    assert_eq!(&buf[..7], b"lo\0\0xyz");
    assert_eq!(file.read_at(&mut buf, 99).unwrap(), 0);
    file.set_len(2).unwrap();
    assert_eq!(disk.read("/d/f").unwrap(), b"he");
}

#[test]
fn opening_reports_the_error() {
    let disk = SimDisk::new();
    file_with(&disk, "/d/f", b"");
    disk.plant("/d/fifo", FileKind::Other);
    let open = |path: &str| error_of(disk.open_read(Path::new(path)));
    assert_eq!(open("/d/none"), ErrorKind::NotFound);
    assert_eq!(open("/d"), ErrorKind::IsADirectory);
    assert_eq!(open("/d/fifo"), ErrorKind::InvalidInput);
    assert_eq!(open("/d/f/g"), ErrorKind::NotADirectory);
    assert_eq!(
        error_of(disk.create(Path::new("/d/f"))),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        error_of(disk.create(Path::new("/e/f"))),
        ErrorKind::NotFound
    );
    disk.deny("/d/f", true);
    assert_eq!(open("/d/f"), ErrorKind::PermissionDenied);
    disk.deny("/d/f", false);
    let reader = disk.open_read(Path::new("/d/f")).unwrap();
    assert!(reader.write_at(b"x", 0).is_err());
}

#[test]
fn names_are_listed_in_byte_order_with_their_kinds() {
    let disk = SimDisk::new();
    for name in ["/d/b", "/d/a", "/d/B", "/d/sub/x"] {
        disk.append(name, b"");
    }
    let listed = disk.list(Path::new("/d")).unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|entry| entry.name.to_str().unwrap())
        .collect();
    assert_eq!(names, ["B", "a", "b", "sub"]);
    assert_eq!(listed[3].kind, FileKind::Directory);
}

#[test]
fn synced_bytes_survive_every_fate() {
    for fate in Fate::ALL {
        let disk = SimDisk::new();
        file_with(&disk, "/d/f", b"durable");
        let found = disk.power_cut(1, fate).read("/d/f");
        assert_eq!(found.as_deref(), Some(&b"durable"[..]), "{fate:?}");
    }
}

#[test]
fn a_new_name_is_lost_without_a_sync_of_its_directory() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.create(Path::new("/d/f")).unwrap();
    write_all_at(&*file, b"x", 0).unwrap();
    file.sync_data().unwrap();
    assert!(!disk.is_durable("/d/f"));
    assert_eq!(disk.power_cut(1, Fate::Lost).read("/d/f"), None);
    disk.fork().sync_dir(Path::new("/d")).unwrap();
    assert_eq!(
        disk.power_cut(1, Fate::Lost).read("/d/f"),
        None,
        "a fork is another disk"
    );
    let disk = disk.fork();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert!(disk.is_durable("/d/f"));
    assert_eq!(disk.power_cut(1, Fate::Lost).read("/d/f").unwrap(), b"x");
}

#[test]
fn create_dir_all_is_durable_and_counted_level_by_level() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    assert_eq!(
        disk.call_log(0),
        ["mkdir /a", "sync_dir /", "mkdir /a/b", "sync_dir /a"]
    );
    let after = disk.power_cut(1, Fate::Lost);
    assert_eq!(
        after.stat(Path::new("/a/b")).unwrap().kind,
        FileKind::Directory
    );
}

#[test]
fn a_killed_process_leaves_bytes_readable_and_not_durable() {
    let disk = SimDisk::new();
    let file = file_with(&disk, "/d/f", b"old");
    write_all_at(&*file, b"new", 0).unwrap();
    let next = disk.power_cut(1, Fate::Kept);
    assert_eq!(next.read("/d/f").unwrap(), b"new");
    assert!(!next.is_durable("/d/f"));
    assert_eq!(
        next.fork().power_cut(1, Fate::Lost).read("/d/f").unwrap(),
        b"old"
    );
    next.open_write(Path::new("/d/f"))
        .unwrap()
        .sync_data()
        .unwrap();
    assert_eq!(next.power_cut(1, Fate::Lost).read("/d/f").unwrap(), b"new");
}

#[test]
fn a_torn_write_leaves_old_or_new_in_each_sector() {
    let (mut whole, mut lost, mut mixed) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new();
        let file = file_with(&disk, "/d/f", &[b'o'; 2000]);
        write_all_at(&*file, &[b'n'; 1500], 300).unwrap();
        let found = disk.power_cut(seed, Fate::Torn).read("/d/f").unwrap();
        assert_eq!(found.len(), 2000);
        let bounds = [0, 300, 512, 1024, 1536, 1800, 2000];
        let pieces: Vec<&[u8]> = bounds
            .windows(2)
            .map(|pair| &found[pair[0]..pair[1]])
            .collect();
        assert!(
            pieces
                .iter()
                .all(|piece| piece.iter().all(|byte| *byte == piece[0]))
        );
        assert!(pieces[0][0] == b'o' && pieces[5][0] == b'o');
        match pieces[1..5].iter().filter(|piece| piece[0] == b'n').count() {
            0 => lost += 1,
            4 => whole += 1,
            _ => mixed += 1,
        }
    }
    assert!(
        lost > 10 && whole > 10 && mixed > 10,
        "{lost} {whole} {mixed}"
    );
}

#[test]
fn a_later_write_may_survive_an_earlier_one_and_leaves_a_hole() {
    let survived_alone = |seed| {
        let disk = SimDisk::new();
        let file = file_with(&disk, "/d/f", b"");
        write_all_at(&*file, &[b'a'; 512], 0).unwrap();
        write_all_at(&*file, &[b'b'; 512], 512).unwrap();
        let found = disk.power_cut(seed, Fate::Torn).read("/d/f").unwrap();
        found.len() == 1024 && found[..512] == [0; 512] && found[512..] == [b'b'; 512]
    };
    assert!((0..100).any(survived_alone));
}

#[test]
fn lengths_may_be_torn() {
    let lengths_found = |seed| {
        let disk = SimDisk::new();
        let file = file_with(&disk, "/d/f", b"0123456789");
        file.set_len(4).unwrap();
        disk.power_cut(seed, Fate::Torn).read("/d/f").unwrap().len()
    };
    let found: std::collections::BTreeSet<_> = (0..50).map(lengths_found).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [4, 10]);
}

#[test]
fn a_rename_is_atomic() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new();
        file_with(&disk, "/d/f", b"old");
        file_with(&disk, "/d/tmp", b"new");
        disk.rename(Path::new("/d/tmp"), Path::new("/d/f")).unwrap();
        assert_eq!(disk.read("/d/f").unwrap(), b"new");
        let after = disk.power_cut(seed, Fate::Torn);
        let state = (after.read("/d/f").unwrap(), after.read("/d/tmp"));
        assert!(state.0 == b"new" && state.1.is_none() || state.0 == b"old" && state.1.is_some());
        seen.insert(state.0);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_rename_across_directories_needs_both_synced() {
    let disk = SimDisk::new();
    file_with(&disk, "/a/f", b"x");
    disk.create_dir_all(Path::new("/b")).unwrap();
    disk.rename(Path::new("/a/f"), Path::new("/b/f")).unwrap();
    disk.sync_dir(Path::new("/b")).unwrap();
    let half = disk.power_cut(1, Fate::Lost);
    assert!(half.read("/a/f").is_some() && half.read("/b/f").is_some());
    let disk = disk.fork();
    disk.sync_dir(Path::new("/a")).unwrap();
    let done = disk.power_cut(1, Fate::Lost);
    assert!(done.read("/a/f").is_none() && done.read("/b/f").is_some());
}

#[test]
fn name_changes_survive_in_order_unless_any_order_is_requested() {
    let second_without_first = |order| {
        (0..100).any(|seed| {
            let disk = SimDisk::new();
            disk.set_name_order(order);
            disk.create(Path::new("/1")).unwrap();
            disk.create(Path::new("/2")).unwrap();
            let after = disk.power_cut(seed, Fate::Torn);
            after.read("/1").is_none() && after.read("/2").is_some()
        })
    };
    assert!(!second_without_first(NameOrder::Prefix));
    assert!(second_without_first(NameOrder::Any));
}

#[test]
fn a_removed_file_comes_back_unless_its_directory_was_synced() {
    let disk = SimDisk::new();
    let file = file_with(&disk, "/d/f", b"x");
    disk.remove_file(Path::new("/d/f")).unwrap();
    assert_eq!(disk.read("/d/f"), None);
    assert_eq!(
        file.stat().unwrap().len_bytes,
        1,
        "who has it open keeps it"
    );
    assert!(disk.power_cut(1, Fate::Lost).read("/d/f").is_some());
    let disk = disk.fork();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert!(disk.power_cut(1, Fate::Lost).read("/d/f").is_none());
}

#[test]
fn inodes_are_stable_and_reused_only_on_request() {
    for reuse in [false, true] {
        let disk = SimDisk::new();
        disk.set_inode_reuse(reuse);
        disk.append("/f", b"x");
        let before = disk.stat(Path::new("/f")).unwrap();
        disk.append("/f", b"y");
        let grown = disk.stat(Path::new("/f")).unwrap();
        assert_eq!(grown.inode, before.inode);
        assert!(grown.modified_ns > before.modified_ns && grown.changed_ns > before.changed_ns);
        disk.settle("/f");
        let after = disk.fork().power_cut(1, Fate::Lost);
        let after = after.stat(Path::new("/f")).unwrap();
        assert_eq!(after.inode, before.inode);
        disk.remove("/f");
        disk.append("/g", b"");
        let same = disk.stat(Path::new("/g")).unwrap().inode == before.inode;
        assert_eq!(same, reuse);
    }
}

#[test]
fn the_process_dies_at_the_chosen_call_and_stays_dead() {
    let disk = SimDisk::new();
    let file = file_with(&disk, "/d/f", b"old");
    disk.crash_at(1);
    file.set_len(1).unwrap();
    assert_eq!(error_of(file.sync_data()), ErrorKind::Other);
    assert!(disk.is_dead());
    assert!(file.write_at(b"x", 0).is_err() && file.read_at(&mut [0], 0).is_err());
    assert!(disk.stat(Path::new("/d/f")).is_err() && disk.create_dir_all(Path::new("/d")).is_err());
    let calls = disk.call_log(disk.calls() - 2);
    assert_eq!(calls, ["set_len /d/f 0+1", "sync_data /d/f"]);
    assert_eq!(disk.power_cut(1, Fate::Lost).read("/d/f").unwrap(), b"old");
    assert_eq!(disk.power_cut(1, Fate::Kept).read("/d/f").unwrap(), b"o");
}

#[test]
fn a_write_at_the_crash_happens_in_part() {
    let mut lengths = std::collections::BTreeSet::new();
    for earlier in 0..40 {
        let disk = SimDisk::new();
        let file = disk.create(Path::new("/f")).unwrap();
        for _ in 0..earlier {
            file.sync_data().unwrap();
        }
        disk.crash_at(0);
        assert!(file.write_at(b"0123456789", 0).is_err());
        let found = disk.power_cut(1, Fate::Kept).read("/f").unwrap();
        assert!(b"0123456789".starts_with(&found));
        lengths.insert(found.len());
    }
    assert!(
        lengths.len() > 5 && lengths.contains(&0) && lengths.contains(&10),
        "{lengths:?}"
    );
}

#[test]
fn a_fault_occurs_once_or_until_healed() {
    for persistent in [false, true] {
        let disk = SimDisk::new();
        let file = file_with(&disk, "/d/f", b"");
        disk.fail_at(
            1,
            Fault {
                persistent,
                ..Fault::once(EIO)
            },
        );
        file.write_at(b"a", 0).unwrap();
        assert_eq!(
            file.write_at(b"b", 1).unwrap_err().raw_os_error(),
            Some(EIO)
        );
        assert_eq!(file.write_at(b"b", 1).is_err(), persistent);
        disk.heal();
        file.write_at(b"c", 2).unwrap();
    }
}

#[test]
fn a_failing_write_may_be_short_or_torn() {
    let outcome = |partly| {
        let disk = SimDisk::new();
        let file = file_with(&disk, "/d/f", b"");
        disk.fail_at(
            0,
            Fault {
                partly,
                ..Fault::once(ENOSPC)
            },
        );
        let first = file.write_at(&[b'x'; 1000], 0).ok();
        (
            first,
            disk.read("/d/f").unwrap().len(),
            file.write_at(b"y", 0).is_ok(),
        )
    };
    assert_eq!(outcome(Partly::Nothing), (None, 0, true));
    let (first, len_bytes, second) = outcome(Partly::Short);
    assert!(first == Some(len_bytes) && len_bytes < 1000 && !second);
    let (first, len_bytes, second) = outcome(Partly::Torn);
    assert!(first.is_none() && (1..1000).contains(&len_bytes) && second);
}

#[test]
fn a_repeated_sync_after_a_failure_makes_nothing_durable() {
    let disk = SimDisk::new();
    let file = file_with(&disk, "/d/f", b"old");
    write_all_at(&*file, b"new", 0).unwrap();
    disk.fail_at(0, Fault::once(EIO));
    assert!(file.sync_data().is_err());
    write_all_at(&*file, b"!", 3).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.read("/d/f").unwrap(), b"new!");
    assert!(!disk.is_durable("/d/f"));
    assert_eq!(
        disk.fork().power_cut(1, Fate::Lost).read("/d/f").unwrap(),
        b"old!"
    );
    for outlives in [false, true] {
        disk.set_doom_outlives_kill(outlives);
        let next = disk.power_cut(1, Fate::Kept);
        next.open_write(Path::new("/d/f"))
            .unwrap()
            .sync_data()
            .unwrap();
        let found = next.power_cut(1, Fate::Lost).read("/d/f").unwrap();
        assert_eq!(found == b"new!", !outlives);
    }
}

#[test]
fn a_full_disk_accepts_only_what_fits_until_space_is_available() {
    let disk = SimDisk::new();
    disk.append("/other", &[0; 60]);
    let file = disk.create(Path::new("/f")).unwrap();
    disk.set_capacity(Some(100));
    assert_eq!(file.write_at(&[1; 50], 0).unwrap(), 40);
    assert_eq!(
        file.write_at(&[1; 10], 40).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(file.set_len(41).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(
        file.write_at(&[2; 10], 0).unwrap(),
        10,
        "what is there can be overwritten"
    );
    disk.remove("/other");
    assert_eq!(disk.used_bytes(), 40);
    assert_eq!(file.write_at(&[1; 10], 40).unwrap(), 10);
    assert_eq!(disk.power_cut(1, Fate::Kept).used_bytes(), 50);
    assert_eq!(disk.power_cut(1, Fate::Lost).used_bytes(), 0);
}

/// Makes every kind of read-only call, on a disk with the file `/d/f`.
fn all_read_calls(disk: &SimDisk) -> Vec<io::Result<()>> {
    let (dir, path) = (Path::new("/d"), Path::new("/d/f"));
    let node = disk.world().tree.find(path).unwrap();
    let open = disk.handle(node, path, false);
    vec![
        disk.open_read(path).map(drop),
        disk.open_write(path).map(drop),
        disk.stat(path).map(drop),
        disk.list(dir).map(drop),
        disk.canonicalize(path).map(drop),
        open.read_at(&mut [0; 4], 0).map(drop),
        open.stat().map(drop),
    ]
}

#[test]
fn read_calls_are_counted_separately_from_mutating_calls() {
    let disk = SimDisk::new();
    file_with(&disk, "/d/f", b"hello");
    let calls = disk.calls();
    assert_eq!(
        disk.read_calls(),
        0,
        "none of writing, syncing, creating looks"
    );
    assert!(all_read_calls(&disk).iter().all(Result::is_ok));
    disk.open_read(Path::new("/d/none")).unwrap_err();
    assert_eq!((disk.read_calls(), disk.calls()), (8, calls));
    assert_eq!(
        (disk.fork().read_calls(), disk.failed_read_call()),
        (8, None)
    );
    disk.read("/d/f").unwrap();
    disk.deny("/d/f", true);
    assert_eq!(disk.read_calls(), 8, "the side door is not counted");
    disk.crash_at(0);
    disk.sync_dir(Path::new("/d")).unwrap_err();
    assert!(all_read_calls(&disk).iter().all(Result::is_err));
    assert_eq!(disk.read_calls(), 8, "a dead process makes no calls");
}

#[test]
fn any_read_call_can_fail_once() {
    let kinds = [
        "open_read",
        "open_write",
        "stat",
        "list",
        "canonicalize",
        "read_at",
        "stat open",
    ];
    for (n, kind) in kinds.iter().enumerate() {
        let disk = SimDisk::new();
        let file = file_with(&disk, "/d/f", b"hello");
        disk.fail_read_call_at(n as u64, Fault::once(EIO));
        for (number, outcome) in all_read_calls(&disk).into_iter().enumerate() {
            let errno = outcome.err().and_then(|error| error.raw_os_error());
            assert_eq!(errno, (number == n).then_some(EIO), "{kind}, {number}");
        }
        let failed = disk.failed_read_call().unwrap();
        assert_eq!(failed.rsplit_once(' ').unwrap().0, *kind);
        write_all_at(&*file, b"x", 0).unwrap();
        assert_eq!(disk.read_calls(), 7, "one that fails is counted");
    }
}

#[test]
fn read_calls_fail_until_the_disk_is_healed_and_writes_succeed() {
    let disk = SimDisk::new();
    let file = file_with(&disk, "/d/f", b"hello");
    disk.fail_read_call_at(2, Fault::until_healed(EIO));
    let failing = |disk: &SimDisk| {
        all_read_calls(disk)
            .iter()
            .filter(|call| call.is_err())
            .count()
    };
    assert_eq!((failing(&disk), failing(&disk)), (5, 7));
    write_all_at(&*file, b"x", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(failing(&disk.fork()), 0, "faults are not copied");
    disk.heal();
    assert_eq!(failing(&disk), 0);
    disk.fail_at(0, Fault::until_healed(EIO));
    assert_eq!(failing(&disk), 0, "the other fault is not of looks");
    file.write_at(b"x", 0).unwrap_err();
}

#[test]
fn the_side_door_is_neither_counted_nor_stopped() {
    let disk = SimDisk::new();
    disk.crash_at(0);
    disk.append("/a/b", b"12");
    disk.append_durable("/a/b", b"34");
    disk.append("/a/b", b"56");
    disk.append("/a/other", b"");
    assert_eq!((disk.calls(), disk.is_dead()), (0, false));
    let after = disk.power_cut(1, Fate::Lost);
    assert_eq!(after.read("/a/b").unwrap(), b"1234");
    assert_eq!(
        after.read("/a/other"),
        None,
        "only the one file was made durable"
    );
    disk.write_file("/a/b", b"new");
    disk.truncate("/a/b", 1);
    disk.move_file("/a/b", "/c/b");
    assert_eq!(
        (disk.read("/a/b"), disk.read("/c/b").unwrap()),
        (None, b"n".to_vec())
    );
}

#[test]
fn a_settled_name_stays_durable_after_any_later_sync() {
    let disk = SimDisk::new();
    disk.append_durable("/d/f", b"first");
    disk.remove("/d/f");
    disk.append("/d/tmp", b"second");
    disk.append("/d/other", b"");
    disk.move_file("/d/tmp", "/d/f");
    disk.settle("/d/f");
    let found = disk.fork().power_cut(1, Fate::Lost);
    assert_eq!(found.read("/d/f").unwrap(), b"second");
    assert_eq!((found.read("/d/tmp"), found.read("/d/other")), (None, None));
    disk.sync_dir(Path::new("/d")).unwrap();
    let found = disk.power_cut(1, Fate::Lost);
    assert_eq!(found.read("/d/f").unwrap(), b"second");
    assert_eq!(found.read("/d/tmp"), None);
    assert!(found.read("/d/other").is_some());
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let disk = SimDisk::new();
    for name in ["/d/1", "/d/2", "/e/3"] {
        disk.append(name, &[7; 5000]);
    }
    let found = |seed| {
        let after = disk.power_cut(seed, Fate::Torn);
        ["/d/1", "/d/2", "/e/3"].map(|name| after.read(name))
    };
    assert!((0..20).all(|seed| found(seed) == found(seed)));
    assert!((0..20).any(|seed| found(seed) != found(0)));
}

#[test]
fn paths_are_resolved_from_the_root() {
    let disk = SimDisk::new();
    disk.append("/a/b", b"");
    assert_eq!(
        disk.canonicalize(Path::new("a/./b")).unwrap(),
        Path::new("/a/b")
    );
    assert!(disk.canonicalize(Path::new("/a/c")).is_err());
}

/// A log of one-byte records in files of three: each is acknowledged once it is believed durable.
struct ToyLog {
    disk: SimDisk,
    careful: bool,
    acknowledged: Vec<u8>,
}

impl ToyLog {
    fn append(&mut self, record: u8) -> io::Result<()> {
        let (file, offset) = (format!("/log/{}", record / 3), u64::from(record % 3));
        let path = Path::new(&file);
        let file = if offset == 0 {
            self.disk.create(path)?
        } else {
            self.disk.open_write(path)?
        };
        write_all_at(&*file, &[record], offset)?;
        file.sync_data()?;
        if self.careful && offset == 0 {
            self.disk.sync_dir(Path::new("/log"))?;
        }
        self.acknowledged.push(record);
        Ok(())
    }

    fn run(disk: &SimDisk, careful: bool) -> Vec<u8> {
        let mut log = Self {
            disk: disk.clone(),
            careful,
            acknowledged: Vec::new(),
        };
        let _crash = disk
            .create_dir_all(Path::new("/log"))
            .and_then(|()| (0..12).try_for_each(|record| log.append(record)));
        log.acknowledged
    }
}

/// Returns the number of crashes that lose an acknowledged record: at every call, with every fate.
fn crashes_that_lose(careful: bool) -> usize {
    let whole = SimDisk::new();
    ToyLog::run(&whole, careful);
    let mut losses = 0;
    for call in 0..=whole.calls() {
        for (seed, fate) in (0..).zip(Fate::ALL) {
            let disk = SimDisk::new();
            disk.crash_at(call);
            let acknowledged = ToyLog::run(&disk, careful);
            let found = disk.power_cut(seed, fate);
            let read = |file: u8| found.read(format!("/log/{file}")).unwrap_or_default();
            let found: Vec<u8> = (0..4).flat_map(read).collect();
            losses += usize::from(!found.starts_with(&acknowledged));
        }
    }
    losses
}

#[test]
fn a_loop_over_all_crash_points_distinguishes_a_careful_log_from_a_careless_one() {
    assert_eq!(crashes_that_lose(true), 0);
    assert!(crashes_that_lose(false) > 10);
}
