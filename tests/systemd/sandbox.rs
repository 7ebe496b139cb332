//! The daemon can do its complete work inside its unit, and nothing else.

use std::time::{Duration, Instant};

use super::host::{CONFIGURATION, Host, ROOT, SERVICE};

/// Maximum time from an append to its row with change events; scans would find it much later.
const BY_EVENT: Duration = Duration::from_secs(5);

pub fn systemd_reports_a_low_exposure(host: &Host) {
    // In tenths of a point: 0.5 of 10.
    for unit in [SERVICE, "distilld@other.service"] {
        let analysis = ["security", "--no-pager", "--threshold=5", unit];
        let output = host.ok("systemd-analyze", &analysis);
        let last = output
            .lines()
            .rfind(|line| line.contains("Overall"))
            .unwrap();
        eprintln!("{}", last.trim_start_matches(['→', ' ']));
    }
    let units = "/usr/lib/systemd/system/distilld.service /usr/lib/systemd/system/distilld@.service \
                 /usr/lib/systemd/system/distilld.socket /usr/lib/systemd/system/distilld@.socket";
    let output = host.shell(&format!("systemd-analyze verify --man=no {units} 2>&1"));
    assert!(!output.contains("distilld"), "{output}");
}

pub fn the_complete_work_is_done_by_events(host: &Host) {
    host.configure("recent_scan_ms = 3600000\nfull_scan_ms = 604800000\npoll_ms = 3600000");
    let backlog = host.append_backlog(2026);
    host.start();
    host.wait_rows(backlog);
    let command = ["--config", super::host::CONFIGURATION, "status", "--json"];
    let status: serde_json::Value = serde_json::from_str(&host.ok("distilld", &command)).unwrap();
    assert_eq!(status["watch"], "events");
    let pairs = [
        "2026/01/01/a.jsonl",
        "2026/01/01/b.jsonl",
        "2027/11/30/a.jsonl",
    ];
    for (pair, rows) in pairs.iter().zip(backlog + 1..) {
        let appended = Instant::now();
        host.append_run(pair, &format!("new in {pair}"));
        host.wait_rows(rows);
        let took = appended.elapsed();
        assert!(took < BY_EVENT, "{pair} took {took:?}");
    }
    host.assert_verified();
}

pub fn nothing_else_can_be_written_read_or_reached(host: &Host) {
    // Runs before the daemon in the same environment: the same user, the same directories, the same system call
    // filter.
    host.write("/usr/local/bin/probe", PROBE);
    host.shell("chmod 755 /usr/local/bin/probe; mkdir -p /home/person; echo > /home/person/secret");
    host.shell("mkdir -p /srv/private; chmod 700 /srv/private");
    host.shell("chmod 777 /srv/lakehouse/data/scored-runs /srv/lakehouse/data/evidence");
    host.drop_in(SERVICE, "[Service]\nExecStartPre=/usr/local/bin/probe\n");
    host.start();
    let output = host.read("/var/lib/distilld/probe");
    assert!(output.ends_with("done\n"), "{output}");
    assert!(!output.contains("could"), "{output}");
    assert!(output.contains("interfaces: lo\n"), "{output}");
    host.shell("rm -r /home/person /usr/local/bin/probe");
}

/// Returns the failures that `check` as root prints for the configuration of the service.
fn failures(host: &Host) -> Vec<String> {
    let output = host.run("distilld", &["--config", CONFIGURATION, "check"]);
    let failures = output.text.lines().filter(|line| line.starts_with("fail"));
    failures.map(str::to_owned).collect()
}

pub fn check_finds_what_the_unit_does_not_permit_and_its_lines_permit_it(host: &Host) {
    assert_eq!(failures(host), Vec::<String>::new());
    // A root, the lines of a drop-in, and the setting that `check` must name.
    let cases = [
        ("/srv/elsewhere", "", "ProtectSystem=strict"),
        ("/home/lake", "", "ProtectHome=yes"),
        ("/var/tmp/lake", "", "PrivateTmp=yes"),
        (
            ROOT,
            "InaccessiblePaths=/srv/lakehouse/data/evidence",
            "InaccessiblePaths=",
        ),
        (ROOT, "TemporaryFileSystem=/srv:ro", "TemporaryFileSystem="),
        (
            ROOT,
            "ReadOnlyPaths=/srv/lakehouse/data/distilled",
            "ReadOnlyPaths=",
        ),
    ];
    let configuration = host.read(CONFIGURATION);
    for (root, lines, setting) in cases {
        host.freshen();
        if root != ROOT {
            host.shell(&format!("mv {ROOT} {root}"));
            host.write(CONFIGURATION, &configuration.replace(ROOT, root));
        }
        host.drop_in(SERVICE, &format!("[Service]\n{lines}\n"));
        let found = failures(host);
        assert!(!found.is_empty(), "{root} {lines}");
        let mut fix = "[Service]\n".to_owned();
        for failure in &found {
            assert!(failure.contains(setting), "{root} {lines}: {failure}");
            let lines = failure.split_once("`[Service]`, `").unwrap().1;
            let lines = lines.split_once("`; ").unwrap().0;
            fix += &format!("{}\n", lines.replace("`, `", "\n"));
        }
        host.write(&format!("/etc/systemd/system/{SERVICE}.d/z-fix.conf"), &fix);
        host.systemctl(&["daemon-reload"]);
        assert_eq!(failures(host), Vec::<String>::new(), "{root} with {fix}");
        host.start();
        host.append_runs(root, "2026/01/01/a.jsonl", &["one"]);
        host.wait(&format!("a row in {root} with {fix}"), || {
            !host.export_of(root).is_empty()
        });
        host.systemctl(&["stop", SERVICE]);
        host.shell("rm -rf /home/lake /var/tmp/lake");
    }
}

pub fn check_has_the_groups_of_the_unit(host: &Host) {
    host.shell("groupadd --force scorers; chgrp scorers /srv/lakehouse/data/evidence");
    host.shell("chmod 0750 /srv/lakehouse/data/evidence");
    let found = failures(host);
    assert!(
        found.len() == 1 && found[0].contains("fail evidence"),
        "{found:?}"
    );
    host.drop_in(SERVICE, "[Service]\nSupplementaryGroups=scorers\n");
    assert_eq!(failures(host), Vec::<String>::new());
}

/// Prints each operation that should be denied and is not.
const PROBE: &str = r#"#!/bin/bash
exec > /var/lib/distilld/probe 2>&1
could() { echo "could $*"; }
for dir in / /etc /usr/bin /var/lib /run /boot /srv /srv/lakehouse /srv/lakehouse/data \
    /srv/lakehouse/data/scored-runs /srv/lakehouse/data/evidence; do
    touch $dir/probe 2>/dev/null && could write $dir
done
touch /srv/lakehouse/data/distilled/probe && rm /srv/lakehouse/data/distilled/probe || echo could not write the output
cat /home/person/secret 2>/dev/null && could read a home
ls /srv/private 2>/dev/null && could read what is private
ls /dev/kmsg /dev/mem /dev/sda 2>/dev/null && could see devices
cat /proc/sys/kernel/hostname 2>/dev/null && could see the kernel
[ -d /proc/1 ] && could see the processes of others
(exec 3<>/dev/tcp/127.0.0.1/9743) 2>/dev/null && could connect
(exec 3<>/dev/udp/127.0.0.1/9) 2>/dev/null && could send
mount -t tmpfs tmpfs /tmp 2>/dev/null && could mount
unshare --user true 2>/dev/null && could make a namespace
chown 0 /srv/lakehouse/data/distilled 2>/dev/null && could give away
nice -n -5 true 2>/dev/null | grep . && could go first
su -c true 2>/dev/null && could become root
chmod u+s /var/lib/distilld/probe 2>/dev/null && could make a setuid file
grep -q '^CapEff:.*[1-9a-f]' /proc/self/status && could use a capability
grep -q '^NoNewPrivs:.*1' /proc/self/status || could gain rights
grep -q '^Seccomp:.*2' /proc/self/status || could make any call
echo "interfaces: $(ls /sys/class/net | tr '\n' ' ' | sed 's/ $//')"
id
echo done
"#;
