//! Reload: the effect of a changed configuration, and that a broken one has none.

use super::host::{CONFIGURATION, Host, SERVICE};

pub fn a_reload_applies_changeable_keys_and_names_the_others(host: &Host) {
    host.start();
    let before = host.property("MainPID");
    host.configure("settle_ms = 1234\nlog_format = \"json\"");
    host.systemctl(&["reload", SERVICE]);
    host.wait("the change is in force", || {
        let log = host.journal(&["CHANGED=settle_ms"]);
        log.contains("configuration reloaded")
    });
    host.wait("what needs a restart is named", || {
        host.journal(&["NEEDS_RESTART=log_format"])
            .contains("restart")
    });
    assert_eq!(host.property("MainPID"), before);
    assert_eq!(host.property("ActiveState"), "active");
    host.append_run("2026/01/01/a.jsonl", "after the reload");
    host.wait_rows(1);
}

pub fn an_invalid_configuration_is_rejected_with_the_reason(host: &Host) {
    host.start();
    let before = host.property("MainPID");
    host.configure("setle_ms = 1234");
    let reload = host.run("systemctl", &["reload", SERVICE]);
    assert_eq!(reload.code, Some(1), "{}", reload.text);
    host.wait("the error is in the journal", || {
        let log = host.journal(&["--priority=err"]);
        log.contains("distilld.toml") && log.contains("did you mean `settle_ms`")
    });
    host.wait("the refusal is the status", || {
        host.property("StatusText").contains("reload rejected")
    });
    host.assert_status_shows(&[
        "active (running)",
        CONFIGURATION,
        "did you mean `settle_ms`",
    ]);
    assert_eq!(host.property("MainPID"), before);
    host.append_run("2026/01/01/a.jsonl", "as before");
    host.wait_rows(1);
    host.configure("settle_ms = 1234");
    host.systemctl(&["reload", SERVICE]);
    host.wait("the refusal is over", || {
        !host.property("StatusText").contains("reload rejected")
    });
}

pub fn a_signal_writes_the_status_to_the_journal(host: &Host) {
    host.append_run("2026/01/01/a.jsonl", "one");
    host.start();
    host.wait_rows(1);
    host.systemctl(&["kill", "--kill-whom=main", "--signal=USR1", SERVICE]);
    host.wait("the journal has it", || {
        host.journal(&["EXPORTED=1"]).contains("status")
    });
}

pub fn the_drop_in_extends_reload_and_time_outs_on_a_newer_systemd(host: &Host) {
    let drop_in = host.read("/usr/share/doc/distilld/examples/systemd-254.conf");
    host.drop_in(SERVICE, &drop_in);
    if host.systemd_version() < 254 {
        // The result is irrelevant for the current unit, but an operator must not see an error for an unknown type.
        let analysis = host.run("systemd-analyze", &["verify", "--man=no", SERVICE]);
        assert!(analysis.text.contains("service type"), "{}", analysis.text);
        return;
    }
    host.start();
    assert_eq!(host.property("Type"), "notify-reload");
    host.configure("settle_ms = 1234");
    host.systemctl(&["reload", SERVICE]);
    // No wait is needed: the reload was complete when systemctl returned.
    let log = host.journal(&["CHANGED=settle_ms"]);
    assert!(log.contains("configuration reloaded"), "{log}");
    assert_eq!(host.property("RestartSteps"), "10");
    assert_eq!(host.property("RestartMaxDelayUSec"), "5min");
}
