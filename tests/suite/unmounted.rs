//! Empty directories whose day-files were read: those of a file system that is not mounted are incomplete, and those whose
//! day-files were deleted are not, also after a boot has given the devices other numbers.

use std::path::{Path, PathBuf};

use distilld::daemon::event_loop::catch_up;
use distilld::daemon::inbox::Inbox;

use crate::support::bench::{Bench, ROOT};
use crate::support::earned::{evidence_line, scored_line};
use crate::support::lake_gen::Stream;
use crate::support::sim_disk::SimDisk;
use crate::torn::rereads;

const NONE: [&str; 0] = [];

const YEARS: [&str; 3] = ["2024", "2025", "2026"];

fn pair(year: &str) -> String {
    format!("{year}/01/01/audits.jsonl")
}

fn path(stream: Stream, below: &str) -> PathBuf {
    stream.path(Path::new(ROOT), below)
}

fn append(disk: &SimDisk, year: &str, run: &str) {
    let scored = path(Stream::Scored, &pair(year));
    let evidence = path(Stream::Evidence, &pair(year));
    disk.append_durable(scored, scored_line(run, "accepted").as_bytes());
    disk.append_durable(evidence, evidence_line(run, "text").as_bytes());
}

/// A lake with a run in each year.
fn lake() -> SimDisk {
    let disk = SimDisk::new();
    for year in YEARS {
        append(&disk, year, year);
    }
    disk
}

/// A process reads everything. Returns the paths that it could not read.
fn run_once(disk: &SimDisk) -> Vec<String> {
    let mut bench = Bench::new(disk.clone());
    bench.open().unwrap();
    let engine = bench.engine.as_mut().unwrap();
    let (inbox, root) = (Inbox::new(), Path::new(ROOT));
    let unreadable = catch_up(engine, root, &*bench.clock, &inbox, &mut |_, _, _| {}).unwrap();
    let paths = unreadable.paths.iter();
    paths.map(|skipped| skipped.path.clone()).collect()
}

/// Deletes the day-files of a year; its directories stay.
fn delete(disk: &SimDisk, year: &str) {
    for stream in Stream::BOTH {
        disk.remove(path(stream, &pair(year)));
    }
}

/// Puts an empty directory in the place of one, as if no file system were mounted there.
fn unmount(disk: &SimDisk, year: &str, device: u64) {
    let mount_point = path(Stream::Scored, year);
    disk.move_file(&mount_point, "/not/mounted");
    disk.make_dir(&mount_point);
    disk.set_device(&mount_point, device);
}

#[test]
fn deleted_day_files_are_no_missing_disk_after_a_boot() {
    for seen_before_boot in [false, true] {
        let disk = lake();
        assert_eq!(run_once(&disk), NONE);
        delete(&disk, "2024");
        if seen_before_boot {
            assert_eq!(run_once(&disk), NONE);
        }
        disk.set_device("/", 7);
        assert_eq!(run_once(&disk), NONE, "seen: {seen_before_boot}");
        assert_eq!(run_once(&disk), NONE, "seen: {seen_before_boot}");
        // All others are read with their new number, so that nothing has the old one any more.
        for year in &YEARS[1..] {
            append(&disk, year, "after the boot");
        }
        assert_eq!(run_once(&disk), NONE, "seen: {seen_before_boot}");
        disk.set_device("/", 8);
        assert_eq!(run_once(&disk), NONE, "seen: {seen_before_boot}");
    }
}

/// Returns the number of day-files that a process reads again from their start.
fn reads_again(disk: &SimDisk) -> u64 {
    let mut bench = Bench::new(disk.clone());
    bench.open().unwrap();
    bench.scan().unwrap();
    bench.quiet().unwrap();
    rereads(&bench)
}

#[test]
fn another_number_of_the_device_alone_is_no_reason_to_read_again() {
    let disk = lake();
    assert_eq!(reads_again(&disk), 0);
    for boot in 7..9 {
        disk.set_device("/", boot);
        append(&disk, YEARS[0], &format!("after boot {boot}"));
        assert_eq!(reads_again(&disk), 0);
    }
    // Another file with the same inode on another device, which differs only in the middle.
    for n in 0..100 {
        append(&disk, YEARS[1], &format!("run {n}"));
    }
    assert_eq!(reads_again(&disk), 0);
    let scored = path(Stream::Scored, &pair(YEARS[1]));
    let text = String::from_utf8(disk.read(&scored).unwrap()).unwrap();
    disk.overwrite(&scored, text.find("run 50").unwrap() as u64, b"RUN 50");
    append(&disk, YEARS[1], "after the last boot");
    disk.set_device("/", 9);
    assert_eq!(reads_again(&disk), 1);
}

#[test]
fn a_year_that_is_not_mounted_is_incomplete_before_and_after_a_boot() {
    for year in YEARS {
        let disk = lake();
        disk.set_device(path(Stream::Scored, year), 2);
        assert_eq!(run_once(&disk), NONE);
        unmount(&disk, year, 1);
        let hidden = [format!("data/scored-runs/{year}")];
        assert_eq!(run_once(&disk), hidden);
        disk.set_device("/", 7);
        assert_eq!(run_once(&disk), hidden);
        for other in YEARS.iter().filter(|other| **other != year) {
            append(&disk, other, "after the boot");
        }
        assert_eq!(run_once(&disk), hidden);
        assert_eq!(run_once(&disk), hidden);
        // It is mounted again, with another number.
        disk.remove_dir(path(Stream::Scored, year));
        disk.move_file("/not/mounted", path(Stream::Scored, year));
        disk.set_device(path(Stream::Scored, year), 9);
        assert_eq!(run_once(&disk), NONE);
    }
}

#[test]
fn an_emptied_year_of_a_disk_of_its_own_is_not_taken_for_a_missing_disk() {
    let disk = lake();
    // Two years are on a second disk.
    for year in &YEARS[..2] {
        disk.set_device(path(Stream::Scored, year), 2);
    }
    assert_eq!(run_once(&disk), NONE);
    delete(&disk, YEARS[0]);
    disk.set_device("/", 7);
    for year in &YEARS[..2] {
        disk.set_device(path(Stream::Scored, year), 8);
    }
    assert_eq!(run_once(&disk), NONE);
}
