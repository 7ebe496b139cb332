//! The procedures of `systemd/README.md`: the commands of a section are run as they are written there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::host::{CONFIGURATION, Host, LONG, SERVICE};
use super::process::wait_until;

const PAIR: &str = "2026/01/01/a.jsonl";

/// Returns the commands of a section of the manual.
fn steps(title: &str) -> String {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/README.md");
    let manual = fs::read_to_string(manual).unwrap();
    let begin = format!("\n### {title}\n");
    let section = manual.split(&begin).nth(1).unwrap();
    let section = section.split("\n##").next().unwrap();
    let steps = section.lines().filter_map(|line| line.strip_prefix("    "));
    steps.fold(String::new(), |text, line| text + line + "\n")
}

pub fn a_command_without_flags_finds_the_packaged_lake(host: &Host) {
    host.append_run(PAIR, "one");
    host.start();
    host.ok("distilld", &["wait", "--fresh", "--timeout", "1m"]);
    assert_eq!(host.ok("distilld", &[]), "fresh: everything is read\n");
    let config = host.ok("distilld", &["config"]);
    assert!(
        config.contains(&format!("file {CONFIGURATION}")),
        "{config}"
    );
    let check = host.ok("distilld", &["check"]);
    assert!(check.contains("the user of distilld.service"), "{check}");
    // The report has the events of the unit, without their texts.
    host.ok("distilld", &["check", "--bundle", "/root/report.json"]);
    let report = host.read("/root/report.json");
    assert!(report.contains("distilld::cli::run"), "{report}");
    assert!(!report.contains("caught up"), "{report}");
    host.shell("rm /root/report.json");
    host.systemctl(&["stop", SERVICE]);
    let stopped = host.run("distilld", &[]);
    assert_eq!(stopped.code, Some(1));
    assert!(
        stopped.text.contains("`systemctl start distilld`"),
        "{}",
        stopped.text
    );
}

pub fn a_backup_is_proved_and_a_lost_disk_is_restored_from_it(host: &Host) {
    host.append_runs("/srv/lakehouse", PAIR, &["one", "two"]);
    host.start();
    host.wait_rows(2);
    host.shell(&steps("Backup"));
    let saved = host.export();
    host.append_run(PAIR, "after the backup");
    host.wait_rows(3);
    host.shell(
        "systemctl stop distilld; rm -r /srv/lakehouse/data/distilled; rm -rf /var/lib/distilld/*",
    );
    host.shell(&steps("The disk died on Friday"));
    assert_eq!(host.rows(), 3);
    assert!(host.export().starts_with(&saved));
    // The same where the state is on another disk, and newer than the backup.
    host.shell("rm -r /srv/lakehouse/data/distilled");
    host.shell(&steps("The disk died on Friday"));
    assert_eq!(host.rows(), 3);
    host.shell("rm -r /backup");
}

pub fn an_upgrade_and_a_downgrade_keep_every_row(host: &Host) {
    host.append_run(PAIR, "one");
    host.start();
    host.wait_rows(1);
    for (package, name) in [
        (&host.packages.first, "old"),
        (&host.packages.second, "new"),
    ] {
        fs::copy(package, host.path(&format!("/root/distilld_{name}.deb"))).unwrap();
    }
    host.shell(&format!("cd /root\n{}", steps("Upgrade and downgrade")));
    host.append_run(PAIR, "two");
    host.wait_rows(2);
    host.shell("rm /root/distilld_*.deb");
}

pub fn a_moved_lake_keeps_its_rows(host: &Host) {
    host.append_runs("/srv/lakehouse", PAIR, &["one", "two"]);
    host.start();
    host.wait_rows(2);
    let before = host.export();
    host.shell(&steps("Moving a lake"));
    assert_eq!(host.export_of("/mnt/lake"), before);
    host.append_runs("/mnt/lake", PAIR, &["three"]);
    host.ok("distilld", &["wait", "--fresh", "--timeout", "1m"]);
    let export = host.export_of("/mnt/lake");
    assert_eq!(memchr::memchr_iter(b'\n', &export).count(), 3);
    assert!(export.starts_with(&before));
    host.shell("systemctl stop distilld; rm -r /mnt/lake");
}

pub fn the_sources_of_another_user_are_read(host: &Host) {
    host.shell("getent group scorers || groupadd --system scorers; id scorers || useradd --system -g scorers scorers; \
             gpasswd -d distilld scorers || true");
    host.append_run(PAIR, "one");
    host.shell("cd /srv/lakehouse/data && chown -R scorers:scorers scored-runs evidence && chmod -R o= scored-runs evidence");
    host.start();
    host.wait("it cannot read them", || {
        host.run("distilld", &[]).text.starts_with("incomplete")
    });
    let check = host.run("distilld", &["check"]);
    assert_eq!(check.code, Some(1), "{}", check.text);
    assert!(
        check.text.contains("usermod -aG scorers distilld"),
        "{}",
        check.text
    );
    host.shell(&steps("Another user's sources"));
    assert_eq!(host.rows(), 1);
    host.shell("gpasswd -d distilld scorers");
}

pub fn a_failure_alerts_and_a_heartbeat_ends_with_the_service(host: &Host) {
    let logged = |tag: &str| {
        let tag = format!("--identifier={tag}");
        host.run(
            "journalctl",
            &["--no-pager", "--quiet", "--output=cat", &tag],
        )
        .text
    };
    host.start();
    host.ok("distilld", &["wait", "--fresh", "--timeout", "1m"]);
    host.shell(&steps("Alerts without Prometheus"));
    host.wait("a heartbeat is sent", || {
        logged("distilld-heartbeat").contains("fresh")
    });
    host.configure("setle_ms = 1");
    host.run("systemctl", &["restart", SERVICE]);
    host.wait("the alert is sent", || {
        logged("distilld-alert").contains("distilld.service failed")
    });
    let beats = logged("distilld-heartbeat").lines().count();
    let beat = host.run("systemctl", &["start", "distilld-heartbeat.service"]);
    assert_eq!(beat.code, Some(1), "{}", beat.text);
    assert_eq!(logged("distilld-heartbeat").lines().count(), beats);
    host.shell(
        "systemctl disable --now distilld-heartbeat.timer
         rm /etc/systemd/system/distilld-heartbeat.* /etc/systemd/system/distilld-alert@.service",
    );
}

/// Returns the answer of a page on a Unix socket.
fn asked(socket: &Path, route: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let request = format!("GET {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until the page of the instance `second` lists the others like this: name, verdict, address, and words of the
/// reason or the fix.
fn wait_listed(host: &Host, expected: &[(&str, Option<&str>, Option<&str>, &str)]) {
    let socket = host.path("/run/distilld-http/second.sock");
    let mut last = String::new();
    let listed = wait_until(LONG, || {
        last = asked(&socket, "/instances.json");
        let body = last.split("\r\n\r\n").nth(1).unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let listed = body["instances"].as_array().unwrap();
        listed.len() == expected.len() + 1
            && expected.iter().all(|(name, verdict, page, words)| {
                let one = listed.iter().find(|one| one["name"] == *name).unwrap();
                one["own"] == false
                    && one["verdict"].as_str() == *verdict
                    && one["pages"][0].as_str() == *page
                    && one.to_string().contains(words)
            })
    });
    assert!(listed, "{last}");
}

pub fn the_page_of_an_instance_lists_the_others_from_inside_its_sandbox(host: &Host) {
    for (name, user) in [("second", "distilld"), ("guest", "guest")] {
        host.shell(&format!(
            "id {user} >/dev/null 2>&1 || useradd {user}
             install -d -o {user} -g {user} -m 755 /srv/{name}/data/distilled"
        ));
        host.write(
            &format!("/etc/distilld/{name}.toml"),
            &format!("root = \"/srv/{name}\"\n"),
        );
    }
    // The state of another user cannot be below the directory of this one.
    host.shell(
        "echo 'state_dir = \"/srv/guest/data/distilled/state\"' >> /etc/distilld/guest.toml",
    );
    host.drop_in(
        "distilld@guest.service",
        "[Service]\nUser=guest\nGroup=guest\nStateDirectory=\n",
    );
    host.write("/etc/distilld/private.toml", "root = \"/srv/private\"\n");
    host.shell("chmod 600 /etc/distilld/private.toml");
    host.start();
    host.systemctl(&["start", "distilld@second.service", "distilld@guest.service"]);
    let private = (
        "private",
        None,
        None,
        "private.toml: cannot read the configuration file: Permission denied",
    );
    let guest = ("guest", None, None, "user distilld may not");
    let first = ("distilld", Some("fresh"), Some("127.0.0.1:9743"), "");
    wait_listed(host, &[first, guest, private]);
    host.systemctl(&["stop", SERVICE]);
    let first = (
        "distilld",
        Some("not_running"),
        None,
        "`systemctl start distilld`",
    );
    wait_listed(host, &[first, guest, private]);
    // A daemon that starts meanwhile is not kept from its lock.
    host.start();
    host.shell("rm -r /srv/second /srv/guest /etc/distilld/second.toml /etc/distilld/guest.toml /etc/distilld/private.toml");
}

pub fn each_instance_has_a_page_and_is_listed(host: &Host) {
    host.write("/etc/distilld/second.toml", "root = \"/srv/second\"\n");
    host.shell("install -d -o distilld -g distilld -m 2750 /srv/second/data/distilled");
    host.start();
    host.systemctl(&["start", "distilld@second.service"]);
    host.append_runs("/srv/second", PAIR, &["one"]);
    host.ok(
        "distilld",
        &["--instance", "second", "wait", "--fresh", "--timeout", "1m"],
    );
    let socket = host.path("/run/distilld-http/second.sock");
    let answer = asked(&socket, "/metrics");
    assert!(answer.contains("\ndistilld_export_rows 1"), "{answer}");
    host.ok("distilld", &["wait", "--fresh", "--timeout", "1m"]);
    // The first has no source that was ever read, the second is fresh: neither needs an action.
    let listed = host.ok("distilld", &["instances"]);
    for name in ["distilld", "second"] {
        let line = listed.lines().find(|line| line.starts_with(name));
        assert!(
            line.is_some_and(|line| line.contains(" active ")),
            "{listed}"
        );
    }
    // A hint names the instance and its unit.
    host.systemctl(&["stop", "distilld@second.service"]);
    host.wait("the socket is removed", || !socket.exists());
    let stopped = host.run("distilld", &["--instance", "second"]);
    assert_eq!(stopped.code, Some(1));
    for hint in [
        "`systemctl start distilld@second`",
        "`distilld --instance second run`",
    ] {
        assert!(stopped.text.contains(hint), "{}", stopped.text);
    }
    let listed = host.run("distilld", &["instances"]);
    assert_eq!(listed.code, Some(1));
    assert!(
        listed.text.contains("second: no daemon runs"),
        "{}",
        listed.text
    );
    host.shell("rm -r /srv/second /etc/distilld/second.toml");
}
