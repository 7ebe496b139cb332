//! Links that another user puts in the way: scorers in the source trees, the daemon's user in its own directories; and
//! other things than files in the places of files.

use std::fs::{self, Permissions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, evidence_with, is_root, scored};

const PAIR: &str = "2026/01/01/a.jsonl";
const OTHER: &str = "2026/01/02/a.jsonl";
/// The user of the daemon.
const OWNER: u32 = 61_001;
const SECRET: &str = "the text of another lake";
const SWAPS: u32 = 10_000;

/// Exchanges a day's directory and a link out of the lake, an even number of times.
fn swap(day: &Path, link: &Path, times: u32) {
    for _ in 0..times {
        renameat_with(CWD, day, CWD, link, RenameFlags::EXCHANGE).unwrap();
    }
}

#[test]
fn a_directory_exchanged_for_a_link_while_it_is_read_leads_nowhere() {
    for stream in Stream::BOTH {
        let bench = Bench::new();
        let outside = bench.sibling("other-lake");
        fs::create_dir(&outside).unwrap();
        let text = match stream {
            Stream::Scored => scored("leak"),
            Stream::Evidence => evidence_with("leak", SECRET),
        };
        fs::write(outside.join("a.jsonl"), text).unwrap();
        match stream {
            Stream::Scored => bench.append(Stream::Evidence, PAIR, evidence_with("leak", SECRET)),
            Stream::Evidence => bench.append(Stream::Scored, PAIR, scored("leak")),
        }
        bench.append(stream, "2026/01/01/b.jsonl", "");
        bench.append_run(OTHER, "first");
        let day = bench.path(stream, "2026/01/01");
        let link = day.with_file_name(".link");
        symlink(&outside, &link).unwrap();
        let mut command = bench.command(&["run"]);
        command.env("DISTILLD_RECENT_SCAN_MS", "10");
        command.env("DISTILLD_POLL_MS", "10");
        command.env("DISTILLD_WATCH", "poll");
        let mut daemon = bench.start_command(&mut command);
        for round in 0..10 {
            swap(&day, &link, SWAPS / 10);
            let run = format!("round {round}");
            bench.append_run(OTHER, &run);
            bench.wait_run(&mut daemon, &run);
        }
        bench.stop(daemon);
        assert!(!bench.has("leak"), "{stream:?}");
        let exported = bench.export_bytes();
        assert!(
            !exported
                .windows(SECRET.len())
                .any(|found| found == SECRET.as_bytes())
        );
    }
}

/// What root owns outside of the lake: a file, a directory with a file, and a name that is free.
struct Outside {
    file: PathBuf,
    dir: PathBuf,
    free: PathBuf,
}

impl Outside {
    fn new(bench: &Bench) -> Self {
        let outside = Self {
            file: bench.sibling("shadow"),
            dir: bench.sibling("etc"),
            free: bench.sibling("preload"),
        };
        fs::create_dir(&outside.dir).unwrap();
        for file in [outside.file.clone(), outside.dir.join("passwd")] {
            fs::write(&file, "root:secret\n").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        }
        outside
    }

    fn targets(&self) -> [&Path; 3] {
        [&self.file, &self.dir, &self.free]
    }

    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        for file in [self.file.clone(), self.dir.join("passwd")] {
            assert_eq!(fs::read(&file).unwrap(), b"root:secret\n", "{what}");
            let stat = fs::metadata(&file).unwrap();
            assert_eq!((stat.uid(), stat.mode() & 0o777), (0, 0o600), "{what}");
        }
        let stat = fs::metadata(&self.dir).unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o777), (0, 0o755), "{what}");
        assert_eq!(fs::read_dir(&self.dir).unwrap().count(), 1, "{what}");
        assert!(fs::symlink_metadata(&self.free).is_err(), "{what}");
    }
}

/// A lake whose state and export belong to the daemon's user.
fn owned_lake() -> Bench {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append(Stream::Scored, PAIR, "broken\n");
    fs::set_permissions(bench.root(), Permissions::from_mode(0o755)).unwrap();
    bench
        .run(&mut bench.as_user(OWNER, &["run", "--once"]))
        .check(0, &[]);
    bench
}

/// Runs a command as root with a link of the daemon's user at a place, to each target outside.
fn check_place(bench: &Bench, outside: &Outside, place: &Path, commands: &[&[&str]]) {
    let kept = place.with_file_name("kept-aside");
    let had = fs::rename(place, &kept).is_ok();
    for target in outside.targets() {
        for arguments in commands {
            // A command may have replaced the link, or made what was missing.
            let _ = fs::remove_file(place).or_else(|_| fs::remove_dir_all(place));
            symlink(target, place).unwrap();
            lchown(place, Some(OWNER), Some(OWNER)).unwrap();
            bench.run(bench.as_user(OWNER, arguments).uid_root());
            let (place, target) = (place.display(), target.display());
            outside.assert_untouched(&format!("{arguments:?}, {place} leads to {target}"));
        }
    }
    let _ = fs::remove_file(place).or_else(|_| fs::remove_dir_all(place));
    if had {
        fs::rename(&kept, place).unwrap();
    }
}

/// The same command as root.
trait AsRoot {
    fn uid_root(&mut self) -> &mut Self;
}

impl AsRoot for std::process::Command {
    fn uid_root(&mut self) -> &mut Self {
        use std::os::unix::process::CommandExt as _;
        self.uid(0).gid(0)
    }
}

const WRITING: [&[&str]; 7] = [
    &["rebuild", "--drop-missing"],
    &["rebuild", "--state-only"],
    &["rebuild", "--effective"],
    &["retract", "a", "--reason", "a test"],
    &["dead-letters", "retry", PAIR],
    &["export"],
    &["run", "--once"],
];
const READING: [&[&str]; 8] = [
    &["status"],
    &["status", "--json"],
    &["explain", "a"],
    &["dead-letters"],
    &["plan"],
    &["verify"],
    &["rows"],
    &["check"],
];

#[test]
fn a_file_of_the_daemon_that_is_a_link_leads_no_command_of_root_away() {
    if !is_root() {
        return;
    }
    let bench = owned_lake();
    let outside = Outside::new(&bench);
    let sft = bench.export().parent().unwrap().to_owned();
    let (distilled, state) = (bench.root().join("data/distilled"), bench.state_dir());
    for place in [
        distilled.join(".distilld.lock.new"),
        distilled.join(".distilld.holder"),
        sft.join("sft_export.jsonl"),
        sft.join("sft_retractions.jsonl"),
        sft.join(".sft_export.jsonl.rebuilding"),
        sft.join(".sft_retractions.jsonl.rebuilding"),
        sft.join("sft_export.jsonl.before-rebuild"),
        sft.join(".sft_export.jsonl.tmp"),
        state.join("rebuilding"),
        state.join("swap-rebuilt"),
        state.join("recent.json"),
        state.join("recent.json.new"),
        state.join("distrusted"),
    ] {
        check_place(&bench, &outside, &place, &WRITING);
    }
}

#[test]
fn a_directory_of_the_daemon_that_is_a_link_leads_no_command_of_root_away() {
    if !is_root() {
        return;
    }
    let bench = owned_lake();
    let outside = Outside::new(&bench);
    let commands: Vec<&[&str]> = WRITING.into_iter().chain(READING).collect();
    for place in [
        bench.state_dir(),
        bench.export().parent().unwrap().to_owned(),
        bench.root().join("data/distilled"),
    ] {
        check_place(&bench, &outside, &place, &commands);
    }
    // A link of root's own is an operator's, as to a larger disk.
    let sft = bench.export().parent().unwrap().to_owned();
    fs::rename(&sft, bench.sibling("larger")).unwrap();
    symlink(bench.sibling("larger"), &sft).unwrap();
    for arguments in commands {
        let ended = bench.run(bench.as_user(OWNER, arguments).uid_root());
        let said = format!("{arguments:?}: {}{}", ended.stdout, ended.stderr);
        assert!(!said.contains("does not follow"), "{said}");
    }
    lchown(&sft, Some(OWNER), Some(OWNER)).unwrap();
    let refused = bench.run(bench.as_user(OWNER, &["rebuild"]).uid_root());
    refused.check(1, &["symbolic link of user 61001", "chown -h root"]);
    chown(bench.sibling("larger"), Some(OWNER), Some(OWNER)).unwrap();
    let own = bench.run(&mut bench.as_user(OWNER, &["status"]));
    assert!(!own.stderr.contains("does not follow"), "{}", own.stderr);
}

#[test]
fn generated_pages_replace_a_link_and_do_not_follow_it() {
    let bench = Bench::new();
    let (dir, victim) = (bench.sibling("pages"), bench.sibling("victim"));
    fs::write(&victim, "text").unwrap();
    let generate = || {
        let mut command = bench.command(&["generate"]);
        bench.run(command.arg(&dir)).check(0, &[]);
    };
    generate();
    for page in ["man/distilld.1", "completions/distilld.bash"] {
        let page = dir.join(page);
        let bytes = fs::read(&page).unwrap();
        for target in [&victim, &bench.sibling("none")] {
            fs::remove_file(&page).unwrap();
            symlink(target, &page).unwrap();
            generate();
            assert!(fs::symlink_metadata(&page).unwrap().is_file());
            assert_eq!(fs::read(&page).unwrap(), bytes);
        }
    }
    assert_eq!(fs::read(&victim).unwrap(), b"text");
    assert!(!bench.sibling("none").exists());
}

/// Puts something in the place of a file of the daemon.
type Put = (&'static str, fn(&Path));

const MISPLACED: [Put; 4] = [
    ("a link", |place| symlink("elsewhere", place).unwrap()),
    ("a directory", |place| fs::create_dir(place).unwrap()),
    ("a FIFO", |place| {
        mknodat(CWD, place, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }),
    ("a socket", |place| {
        // The path of the place itself may be longer than an address.
        let dir = fs::File::open(place.parent().unwrap()).unwrap();
        let name = place.file_name().unwrap().to_str().unwrap();
        let short = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        drop(UnixListener::bind(short).unwrap());
    }),
];
/// A device whose bytes have no end.
const ENDLESS: Put = ("a device", |place| {
    let zero = fs::metadata("/dev/zero").unwrap().rdev();
    mknodat(
        CWD,
        place,
        FileType::CharacterDevice,
        Mode::RUSR | Mode::WUSR,
        zero,
    )
    .unwrap();
});

#[test]
fn what_is_in_the_place_of_a_file_of_the_daemon_is_named_and_no_fault_of_the_disk() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.once();
    let distilled = bench.root().join("data/distilled");
    let device = is_root().then_some(ENDLESS);
    for place in [
        bench.state_dir().join("state.redb"),
        bench.state_dir().join("journal"),
        bench.state_dir().join(".distilld.lock"),
        distilled.join(".distilld.lock"),
        distilled.join(".distilld.holder.new"),
        bench.export(),
        bench.export().with_file_name("sft_retractions.jsonl"),
    ] {
        let aside = place.with_file_name("kept-aside");
        let had = fs::rename(&place, &aside).is_ok();
        for (what, put) in MISPLACED.iter().chain(&device) {
            if !had && *what != "a directory" {
                continue;
            }
            put(&place);
            let ended = bench.run(&mut bench.command(&["run", "--once"]));
            ended.check(1, &[place.to_str().unwrap(), "fix: move ", " away"]);
            assert!(!ended.stderr.contains("dmesg"), "{what}: {}", ended.stderr);
            fs::remove_file(&place)
                .or_else(|_| fs::remove_dir(&place))
                .unwrap();
        }
        if had {
            fs::rename(&aside, &place).unwrap();
        }
    }
    bench.append_run(PAIR, "b");
    bench.once();
    bench.assert_batch();
}
