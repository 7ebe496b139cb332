//! The manual pages and completions of the publisher.

use std::fs;

use crate::support::pages::{
    assert_groff_formats_all, assert_mandoc_accepts_all, generated, manual_pages,
};

#[test]
fn there_is_a_manual_page_for_the_program_each_command_and_the_configuration() {
    let dir = generated(env!("CARGO_BIN_EXE_distilld-publish"));
    let pages = manual_pages(dir.path());
    let names: Vec<_> = pages
        .iter()
        .map(|page| page.file_name().unwrap().to_string_lossy())
        .collect();
    let commands = [
        "-generate.1",
        "-once.1",
        "-replace.1",
        "-run.1",
        "-status.1",
        "-verify.1",
        ".1",
        ".toml.5",
    ];
    let wanted = commands.map(|end| format!("distilld-publish{end}"));
    assert_eq!(names, wanted);
    assert_groff_formats_all(dir.path());
    assert_mandoc_accepts_all(dir.path());
    let page = fs::read_to_string(dir.path().join("man/distilld-publish.toml.5")).unwrap();
    for wanted in ["commit_interval_s", "64MiB", "no other host has"] {
        assert!(
            page.replace("\\-", "-").contains(wanted),
            "no {wanted} in {page}"
        );
    }
    for file in [
        "distilld-publish.bash",
        "_distilld-publish",
        "distilld-publish.fish",
    ] {
        let script = fs::read_to_string(dir.path().join("completions").join(file)).unwrap();
        assert!(
            script.contains("replace") && script.contains("dry-run"),
            "{file}"
        );
    }
}
