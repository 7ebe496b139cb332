//! A table on NFS: the server of the kernel, and two mounts of it with caches of their own, as those of two hosts, one of
//! version 4.2 and one of version 3. The kernel of the host need not have NFS: a Linux runs as a process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::file_systems::EXT4;
use crate::host;
use crate::publisher::{Publisher, preloadable, python};
use crate::support::process::Bench;
use crate::support::tools::skip;

/// Returns where the packages are unpacked that have the kernel and the programs of the server.
fn packages() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_BIN_EXE_distilld"));
    let packages = built.ancestors().nth(2)?.join("nfs");
    match packages.join("usr/bin/linux.uml").exists() {
        true => Some(packages),
        false => skip(&format!(
            "user-mode-linux and nfs-kernel-server are not unpacked in {}; .ci/run does that",
            packages.display()
        )),
    }
}

/// Runs the script in a Linux with this disk, and returns what it printed.
fn run_linux(bench: &Bench, packages: &Path, library: &Path, disk: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/publish/nfs.sh");
    let mut command = Command::new(packages.join("usr/bin/linux.uml"));
    command.env("LD_PRELOAD", library);
    command.args(["mem=512M", "quiet", "root=/dev/root", "rootfstype=hostfs"]);
    command.args(["rootflags=/", "ro", "con0=fd:0,fd:1", "con=null"]);
    for (name, value) in [
        ("ubd0", disk),
        ("init", &script),
        ("PACKAGES", packages),
        ("PUBLISH", Path::new(env!("CARGO_BIN_EXE_distilld-publish"))),
        ("CONFIGS", &bench.sibling("")),
    ] {
        command.arg(format!("{name}={}", value.display()));
    }
    let ended = bench.run(&mut command);
    ended.stdout + &ended.stderr
}

#[test]
fn twins_on_two_mounts_publish_each_row_once() {
    if !host::has(&[]) || !EXT4.is_available() || python().is_none() {
        return;
    }
    let Some(packages) = packages() else { return };
    let bench = Bench::new();
    let Some(library) = preloadable(&bench, "whole_state") else {
        return;
    };
    let mount = bench.sibling("mount");
    let table = mount.join("sft").display().to_string();
    let publisher = Publisher::with(bench, &table, "lake-07", "");
    let bench = &publisher.bench;
    let runs: Vec<String> = (0..60).map(|n| format!("r{n}")).collect();
    let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
    publisher.export_runs(&runs[..40]);
    let exports = bench.export().parent().unwrap().to_owned();
    let before = bench.sibling("before");
    host::must(
        "cp",
        &["-r", exports.to_str().unwrap(), before.to_str().unwrap()],
    );
    publisher.judge(runs[7], "rejected");
    publisher.export_runs(&runs[40..]);
    for (stage, exports) in [("before", &before), ("after", &exports)] {
        for mount in ["a", "b"] {
            let text = format!(
                "export = {:?}\ntable = \"/mnt/{mount}/sft\"\nhost = \"lake-07\"\n\
                 commit_bytes = \"2KiB\"\ncheckpoint_every = 3\n",
                exports.join("sft_export.jsonl")
            );
            fs::write(bench.sibling(&format!("{stage}-{mount}.toml")), text).unwrap();
        }
    }
    let disk = bench.sibling("disk");
    EXT4.make(&disk);
    let printed = run_linux(bench, &packages, &library, &disk);
    eprintln!("{printed}");
    assert!(printed.contains("all is published"), "{printed}");
    let mounted = EXT4.mount(&disk, &mount);
    publisher.assert_published();
    publisher.run(&["verify"]).check(0, &[]);
    drop(mounted);
}
