//! The package: install, upgrade, removal, purge, and the separation of instances.

use std::process::Command;

use super::host::{CONFIGURATION, Host, SERVICE};
use super::process::run;

pub fn the_package_is_installed_completely_and_the_service_runs(host: &Host) {
    // As after a first installation: reinstalling restores the files that `freshen` removed.
    host.shell("dpkg --purge distilld; systemctl daemon-reload; rm -rf /srv/lakehouse");
    host.install(&host.packages.first);
    assert_eq!(host.systemctl(&["is-enabled", SERVICE]).trim(), "enabled");
    host.wait_state("active");
    let conffiles = host.ok(
        "dpkg-query",
        &["--show", "--showformat=${Conffiles}", "distilld"],
    );
    for conffile in [CONFIGURATION, "/etc/default/distilld"] {
        assert!(conffiles.contains(conffile), "{conffiles}");
    }
    assert_eq!(host.ok("dpkg", &["--verify", "distilld"]), "");
    let owners = host.shell("stat -c '%U:%G %a' /srv/lakehouse/data/distilled /var/lib/distilld");
    assert_eq!(owners, "distilld:distilld 2750\ndistilld:distilld 750\n");
    host.append_run("2026/01/01/a.jsonl", "one");
    host.wait_rows(1);
}

pub fn lintian_finds_nothing(host: &Host) {
    let mut lintian = Command::new("lintian");
    lintian.args([
        "--allow-root",
        "--fail-on=error,warning",
        "--tag-display-limit=0",
    ]);
    lintian.arg(&host.packages.first);
    let ended = run(lintian.args(&host.packages.publisher)).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
}

pub fn an_instance_keeps_its_own_lake(host: &Host) {
    host.write(
        "/etc/distilld/second.toml",
        "root = \"/mnt/second\"\nstate_dir = \"/var/lib/distilld/instances/second\"\n",
    );
    let drop_in = host.shell("cat /usr/share/doc/distilld/examples/root.conf");
    host.drop_in(
        "distilld@second.service",
        &drop_in.replace("/mnt/lake", "/mnt/second"),
    );
    host.shell("install -d -o distilld -g distilld -m 2750 /mnt/second/data/distilled");
    host.start();
    host.systemctl(&["start", "distilld@second.service"]);
    host.append_runs("/mnt/second", "2026/01/01/a.jsonl", &["of the second"]);
    host.append_run("2026/01/01/a.jsonl", "of the first");
    host.wait_rows(1);
    host.wait("the second lake has a row", || {
        !host.export_of("/mnt/second").is_empty()
    });
    let state = host.path("/var/lib/distilld/instances/second/state.redb");
    assert!(state.is_file());
    // Both are informed of an upgrade and continue.
    let before = host.property_of("distilld@second.service", "MainPID");
    host.install(&host.packages.first);
    assert_ne!(
        host.property_of("distilld@second.service", "MainPID"),
        before
    );
    host.append_runs("/mnt/second", "2026/01/01/a.jsonl", &["after the upgrade"]);
    host.wait("the second lake has its second row", || {
        memchr::memchr_iter(b'\n', &host.export_of("/mnt/second")).count() == 2
    });
    host.shell(
        "systemctl stop distilld@second.service; rm -r /mnt/second /etc/distilld/second.toml",
    );
}

pub fn an_upgrade_keeps_the_state_and_the_configuration(host: &Host) {
    host.configure("settle_ms = 4321");
    host.append_run("2026/01/01/a.jsonl", "before");
    host.start();
    host.wait_rows(1);
    let export = host.export();
    let before = host.property("MainPID");
    host.install(&host.packages.second);
    host.wait_state("active");
    assert_ne!(
        host.property("MainPID"),
        before,
        "the new program does not run"
    );
    assert!(host.read(CONFIGURATION).contains("settle_ms = 4321"));
    host.append_run("2026/01/01/a.jsonl", "after");
    host.wait_rows(2);
    assert!(host.export().starts_with(&export));
    host.assert_verified();
    let version = ["--show", "--showformat=${Version}", "distilld"];
    assert!(host.ok("dpkg-query", &version).ends_with("-2"));
}

pub fn a_purge_removes_the_state_and_keeps_the_export(host: &Host) {
    host.append_run("2026/01/01/a.jsonl", "kept");
    host.start();
    host.wait_rows(1);
    let export = host.export();
    host.ok("dpkg", &["--remove", "distilld"]);
    assert!(
        host.path("/var/lib/distilld/state.redb").is_file(),
        "a removal keeps the state"
    );
    assert!(
        host.path(CONFIGURATION).is_file(),
        "a removal keeps the configuration"
    );
    host.ok("dpkg", &["--purge", "distilld"]);
    assert!(!host.path("/var/lib/distilld").exists());
    assert!(!host.path("/etc/distilld").exists());
    assert_eq!(host.export(), export);
    let left = ["list-unit-files", "--no-legend", "--no-pager", "distilld*"];
    assert_eq!(host.run("systemctl", &left).text, "");
    // Back to the first version: the state is expendable.
    host.install(&host.packages.second);
    host.append_run("2026/01/01/a.jsonl", "after");
    host.wait_rows(2);
    host.assert_verified();
}

pub fn the_steps_for_other_distributions_work(host: &Host) {
    host.run("dpkg", &["--purge", "distilld"]);
    host.shell("rm -rf /srv/lakehouse");
    // The result of `cargo install`, with the program of the package.
    host.shell("dpkg-deb --fsys-tarfile /root/distilld.deb | tar --extract --directory=/ ./usr/bin/distilld");
    let steps = documented_steps();
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");
    let copied = run(Command::new("cp")
        .args(["-r", sources])
        .arg(host.path("/root")));
    assert_eq!(copied.unwrap().code, Some(0));
    host.shell(&format!("cd /root\n{steps}"));
    host.wait_state("active");
    host.append_run("2026/01/01/a.jsonl", "one");
    host.wait_rows(1);
    host.systemctl(&["disable", "--now", SERVICE]);
}

/// The commands in `systemd/README.md` for installing without a package, except the first, which compiles.
fn documented_steps() -> String {
    let page = include_str!("../../systemd/README.md");
    let steps = page
        .split_once("    cargo install --locked --path .")
        .unwrap()
        .1;
    let steps = steps
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("    "));
    steps
        .map(|line| line.trim_start().to_owned() + "\n")
        .collect()
}
