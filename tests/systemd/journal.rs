//! Journal output: searchable fields, correct levels, no duplicate timestamp.

use super::host::Host;

pub fn events_are_found_by_fields_and_levels(host: &Host) {
    const DAY_FILE: &str = "/srv/lakehouse/data/scored-runs/2026/01/01/a.jsonl";
    host.append_run("2026/01/01/a.jsonl", "hidden");
    host.shell(&format!("chmod 0 {DAY_FILE}"));
    host.start();
    let by_file = format!("DAY_FILE={DAY_FILE}");
    host.wait("the day-file is found by its name", || {
        host.journal(&[&by_file]).contains("skipped, retrying")
    });
    let event = host.journal(&[&by_file, "--output=json"]);
    let event: serde_json::Value = serde_json::from_str(event.lines().next().unwrap()).unwrap();
    assert_eq!(event["PRIORITY"], "4", "{event}");
    assert_eq!(event["SYSLOG_IDENTIFIER"], "distilld", "{event}");
    let message = event["MESSAGE"].as_str().unwrap();
    assert!(
        !message.contains("level=") && !message.contains("time="),
        "{message}"
    );
    // Logged at `info`, so not among the warnings.
    assert!(host.journal(&[]).contains("started"));
    assert!(!host.journal(&["--priority=warning"]).contains("started"));
    host.shell(&format!("chmod 644 {DAY_FILE}"));
    host.wait_rows(1);
}
