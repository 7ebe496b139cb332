//! The example lake, which the README's first command works on: every class and every verdict is in it.

use std::path::Path;
use std::process::Command;

#[test]
fn the_example_lake_holds_every_class_and_every_verdict() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lake");
    let ended = Command::new(env!("CARGO_BIN_EXE_distilld"))
        .args(["--root", root.to_str().unwrap(), "export", "--output", "-"])
        .output()
        .unwrap();
    let rows = String::from_utf8(ended.stdout).unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    let result = said.lines().last().unwrap();
    assert!(
        result.contains(r#""records_read":42,"records_exported":26,"records_quarantined":11"#),
        "{said}"
    );
    assert!(result.contains("firewall=11, not-instructable=5"), "{said}");
    for beginning in [
        "Review the file",
        "Run task_class=",
        "Auto-apply:",
        "Audit phase",
        "Observer-review",
        "Analyze permit",
        "Analyze contractor",
        "Run scenario;",
        "Source 'llm_team_runs' run;",
    ] {
        let instruction = format!(r#""instruction":"{beginning}"#);
        assert!(rows.contains(&instruction), "no row of {beginning}");
    }
}
