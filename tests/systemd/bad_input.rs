//! Starts that fail. Each shows the problem and the remedy in `systemctl status`, and the service retries by itself
//! only where that can help.

use super::host::{CONFIGURATION, Host, ROOT, SERVICE};

/// More restarts than systemd's default limit allows.
const MANY: u32 = 8;

fn start(host: &Host) {
    // The unit's state shows whether the first attempt counts as failed.
    host.run("systemctl", &["start", SERVICE]);
}

/// Asserts that a person has to act: the service failed once, with the exit code of a bad configuration.
#[track_caller]
fn assert_given_up(host: &Host, words: &[&str]) {
    host.wait_state("failed");
    assert_eq!(host.property("ExecMainStatus"), "78");
    assert_eq!(host.property("NRestarts"), "0");
    host.assert_status_shows(words);
}

/// Shortens the restart delay, so that waiting for restarts takes little time.
fn restart_after(host: &Host, pause: &str) {
    host.drop_in(SERVICE, &format!("[Service]\nRestartSec={pause}\n"));
}

/// Asserts that the service waits for its next attempt and that `systemctl status` shows the error: it prints the
/// journal of the last attempt until the next one starts.
#[track_caller]
fn assert_will_try_again(host: &Host, words: &[&str]) {
    host.wait("it waits for its next try", || {
        host.property("SubState") == "auto-restart"
    });
    host.assert_status_shows(words);
}

pub fn an_invalid_key_is_reported_without_retries(host: &Host) {
    host.configure("setle_ms = 1");
    start(host);
    assert_given_up(
        host,
        &[CONFIGURATION, "setle_ms", "did you mean `settle_ms`"],
    );
    host.configure("settle_ms = 1000");
    host.start();
}

pub fn a_missing_configuration_is_reported_without_retries(host: &Host) {
    host.shell("rm /etc/distilld/distilld.toml");
    start(host);
    let words = [CONFIGURATION, "cannot read the configuration file"];
    assert_given_up(host, &words);
}

pub fn a_missing_root_is_retried_until_it_exists(host: &Host) {
    host.shell("mv /srv/lakehouse /srv/elsewhere");
    restart_after(host, "10ms");
    start(host);
    host.wait("many restarts", || {
        host.property("NRestarts").parse::<u32>().unwrap() >= MANY
    });
    restart_after(host, "3s");
    assert_will_try_again(host, &[ROOT, "No such file or directory", "mount it"]);
    host.shell("mv /srv/elsewhere /srv/lakehouse");
    host.wait_state("active");
    host.append_run("2026/01/01/a.jsonl", "one");
    host.wait_rows(1);
}

pub fn a_root_that_cannot_be_mounted_keeps_the_service_down(host: &Host) {
    let mount = |what: &str| {
        let unit = format!("[Mount]\nWhat={what}\nWhere=/srv/lakehouse\nType=tmpfs\n");
        let options = match what {
            "lake" => "Options=mode=0755\n",
            _ => "Options=no-such-option\n",
        };
        host.write("/etc/systemd/system/srv-lakehouse.mount", &(unit + options));
        host.systemctl(&["daemon-reload"]);
    };
    mount("broken");
    start(host);
    assert_eq!(host.property("ActiveState"), "inactive");
    host.assert_status_shows(&["Dependency failed for distilld.service"]);
    mount("lake");
    host.systemctl(&["reset-failed"]);
    host.systemctl(&["start", "srv-lakehouse.mount"]);
    host.shell("systemd-tmpfiles --create distilld.conf");
    host.start();
    host.append_run("2026/01/01/a.jsonl", "one");
    host.wait_rows(1);
}

pub fn an_unreadable_root_is_reported(host: &Host) {
    host.shell("chmod 0700 /srv/lakehouse");
    restart_after(host, "3s");
    start(host);
    assert_will_try_again(host, &[ROOT, "Permission denied"]);
    host.shell("chmod 0755 /srv/lakehouse");
    host.wait_state("active");
}

pub fn a_wrong_owner_is_reported(host: &Host) {
    host.shell("chown root:root /srv/lakehouse/data/distilled");
    restart_after(host, "3s");
    start(host);
    assert_will_try_again(
        host,
        &[
            "/srv/lakehouse/data/distilled",
            "Permission denied",
            "read and write permission",
        ],
    );
    host.shell("chown distilld:distilld /srv/lakehouse/data/distilled");
    host.wait_state("active");
}

pub fn a_root_outside_the_units_paths_is_reported(host: &Host) {
    host.shell("mv /srv/lakehouse /srv/elsewhere");
    let configuration = host.read(CONFIGURATION);
    host.write(
        CONFIGURATION,
        &configuration.replace(ROOT, "/srv/elsewhere"),
    );
    restart_after(host, "3s");
    start(host);
    assert_will_try_again(
        host,
        &["/srv/elsewhere", "Read-only file system", "ReadWritePaths="],
    );
    let drop_in = host.read("/usr/share/doc/distilld/examples/root.conf");
    host.drop_in(SERVICE, &drop_in.replace("/mnt/lake", "/srv/elsewhere"));
    host.systemctl(&["restart", SERVICE]);
    host.append_runs("/srv/elsewhere", "2026/01/01/a.jsonl", &["one"]);
    host.wait("its row is there", || {
        !host.export_of("/srv/elsewhere").is_empty()
    });
}
