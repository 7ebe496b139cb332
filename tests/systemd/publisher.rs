//! The package of the publisher, next to that of the daemon: its unit publishes the rows of the running daemon, and a purge
//! leaves nothing of it.

use super::host::Host;

const UNIT: &str = "distilld-publish.service";
const CONFIG: &str = "/etc/distilld/publish.toml";
const ENVIRONMENT: &str = "/etc/default/distilld-publish";

pub fn its_package_publishes_the_rows_of_the_daemon_and_leaves_nothing(host: &Host) {
    let Some(package) = &host.packages.publisher else {
        eprintln!("skipped: no distilld-publish; cargo build --features publish");
        return;
    };
    host.install(package);
    is_installed_and_waits_for_its_operator(host);
    publishes(host);
    stops_and_starts(host);
    systemd_reports_a_low_exposure(host);
    is_removed_and_purged(host);
}

fn is_installed_and_waits_for_its_operator(host: &Host) {
    assert_eq!(
        host.run("systemctl", &["is-enabled", UNIT]).text,
        "disabled\n"
    );
    assert_eq!(host.property_of(UNIT, "ActiveState"), "inactive");
    assert_eq!(host.ok("dpkg", &["--verify", "distilld-publish"]), "");
    let conffiles = ["--show", "--showformat=${Conffiles}", "distilld-publish"];
    let conffiles = host.ok("dpkg-query", &conffiles);
    assert!(conffiles.contains(CONFIG) && conffiles.contains(ENVIRONMENT));
    assert_eq!(host.shell(&format!("stat -c %a {ENVIRONMENT}")), "600\n");
    // The configuration of the publisher is not taken for that of an instance.
    assert!(
        !host
            .run("distilld", &["instances"])
            .text
            .contains("publish")
    );
    for page in ["man1/distilld-publish.1", "man5/distilld-publish.toml.5"] {
        assert!(host.path(&format!("/usr/share/man/{page}.gz")).is_file());
    }
}

fn publishes(host: &Host) {
    let configuration = host.read(CONFIG);
    let fast = configuration.replace("#commit_interval_s = 60", "commit_interval_s = 1");
    host.write(CONFIG, &fast);
    host.drop_in(UNIT, "[Service]\nReadWritePaths=/mnt/lake\n");
    host.shell("install -d -o distilld-publish /mnt/lake");
    host.append_run("2026/01/01/a.jsonl", "one");
    host.start();
    host.wait_rows(1);
    host.systemctl(&["start", UNIT]);
    wait_published(host, 1);
    host.append_run("2026/01/01/a.jsonl", "two");
    host.wait_rows(2);
    wait_published(host, 2);
    let status = host.run("systemctl", &["status", "--no-pager", UNIT]).text;
    assert!(
        status.contains("bytes of the export to /mnt/lake/sft"),
        "{status}"
    );
}

/// Waits until the table has this number of rows, which is all of them.
fn wait_published(host: &Host, rows: u64) {
    host.wait(&format!("{rows} published rows"), || {
        let verified = as_publisher(host, "verify");
        let value = |name: &str| verified.as_ref().map(|verified| verified[name].clone());
        value("published") == Some(rows.into()) && value("equal") == Some(true.into())
    });
}

/// Returns the result of a command of the publisher, run by the user and the groups of the unit.
fn as_publisher(host: &Host, command: &str) -> Option<serde_json::Value> {
    let user = "--reuid=distilld-publish --regid=distilld-publish --groups=distilld";
    let script = format!("setpriv {user} -- distilld-publish {command} 2>/dev/null");
    serde_json::from_str(&host.run("sh", &["-c", &script]).text).ok()
}

fn stops_and_starts(host: &Host) {
    host.systemctl(&["stop", UNIT]);
    assert_eq!(host.property_of(UNIT, "Result"), "success");
    assert_eq!(host.property_of(UNIT, "ExecMainStatus"), "0");
    host.append_run("2026/01/01/a.jsonl", "three");
    host.wait_rows(3);
    host.systemctl(&["start", UNIT]);
    wait_published(host, 3);
}

fn systemd_reports_a_low_exposure(host: &Host) {
    // In tenths of a point: 1.5 of 10. The network is most of it.
    let analysis = ["security", "--no-pager", "--threshold=15", UNIT];
    let output = host.ok("systemd-analyze", &analysis);
    let overall = output.lines().rfind(|line| line.contains("Overall"));
    eprintln!("{}", overall.unwrap().trim_start_matches(['→', ' ']));
    let unit = format!("/usr/lib/systemd/system/{UNIT}");
    let output = host.shell(&format!("systemd-analyze verify --man=no {unit} 2>&1"));
    assert!(!output.contains("distilld"), "{output}");
}

fn is_removed_and_purged(host: &Host) {
    host.ok("dpkg", &["--remove", "distilld-publish"]);
    assert!(
        host.path(CONFIG).is_file(),
        "a removal keeps the configuration"
    );
    host.ok("dpkg", &["--purge", "distilld-publish"]);
    host.shell("rm -r /etc/systemd/system/distilld-publish.service.d; systemctl daemon-reload");
    let left = "find / -xdev -name '*distilld-publish*' -o -xdev -path /etc/distilld/publish.toml";
    assert_eq!(host.shell(left), "");
    assert_eq!(
        host.run("systemctl", &["is-active", "distilld"]).text,
        "active\n"
    );
    assert!(
        host.path("/mnt/lake/sft/_delta_log").is_dir(),
        "the table stays"
    );
    host.shell("rm -r /mnt/lake");
}
