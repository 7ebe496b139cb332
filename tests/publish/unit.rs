//! The unit of the service, read by systemd's own tool.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::publisher::Publisher;
use crate::support::tools::tool;

#[test]
fn systemd_accepts_the_unit_and_its_sandbox() {
    let Some(analyze) = tool("systemd-analyze") else {
        return;
    };
    let publisher = Publisher::new();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/distilld-publish.service");
    let text = fs::read_to_string(unit).unwrap();
    let program = "/usr/bin/distilld-publish";
    assert!(text.contains(&format!("ExecStart={program} run\n")));
    let installed = publisher.bench.sibling("distilld-publish.service");
    fs::write(
        &installed,
        text.replace(program, env!("CARGO_BIN_EXE_distilld-publish")),
    )
    .unwrap();
    for arguments in [
        &["verify", "--man=no"][..],
        &["security", "--offline=true", "--threshold=20"][..],
    ] {
        let mut command = Command::new(&analyze);
        let ended = publisher.bench.run(command.args(arguments).arg(&installed));
        ended.check(0, &[]);
        assert!(
            !ended.stderr.contains("distilld-publish.service:"),
            "{}",
            ended.stderr
        );
    }
}
