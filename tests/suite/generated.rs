//! The manual pages and completions that `distilld generate` writes: read by the real tools.

use std::process::Command;

use clap::CommandFactory as _;
use distilld::cli::args::Arguments;
use distilld::cli::generate;
use distilld::config::KEYS;
use tempfile::TempDir;

use crate::support::pages::{self, manual_pages, output_of};
use crate::support::process::output_with_stdin;
use crate::support::tools::tool;

fn generated() -> TempDir {
    pages::generated(env!("CARGO_BIN_EXE_distilld"))
}

#[test]
fn there_is_a_manual_page_for_the_program_each_command_the_configuration_and_the_input() {
    let dir = generated();
    let names: Vec<String> = manual_pages(dir.path())
        .iter()
        .map(|page| page.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let mut wanted = vec![
        "distilld.1".to_owned(),
        "distilld-lake.5".to_owned(),
        "distilld.toml.5".to_owned(),
    ];
    let commands = Arguments::command();
    wanted.extend(
        commands
            .get_subcommands()
            .map(|command| format!("distilld-{}.1", command.get_name())),
    );
    wanted.sort();
    assert_eq!(names, wanted);
}

#[test]
fn groff_formats_every_manual_page_without_warnings_or_overlong_lines() {
    pages::assert_groff_formats_all(generated().path());
}

#[test]
fn man_shows_a_page_with_its_flags_examples_and_exit_codes() {
    let Some(man) = tool("man") else { return };
    let dir = generated();
    let mut command = Command::new(man);
    command
        .env("MANWIDTH", "80")
        .env("MANPAGER", "cat")
        .env("LC_ALL", "C.UTF-8");
    command
        .args(["--warnings", "--local-file"])
        .arg(dir.path().join("man/distilld-export.1"));
    let text = output_of(&mut command);
    for wanted in [
        "distilld-export",
        "--recorded-at",
        "EXAMPLES",
        "EXIT STATUS",
        "distilld.toml(5)",
    ] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
}

#[test]
fn mandoc_finds_no_error_in_any_manual_page() {
    pages::assert_mandoc_accepts_all(generated().path());
}

#[test]
fn the_configuration_page_lists_every_key_with_its_default_and_bounds() {
    let pages = generate::all().unwrap();
    let page = pages
        .iter()
        .find(|page| page.path.ends_with("toml.5"))
        .unwrap();
    let text = String::from_utf8_lossy(&page.bytes).replace("\\-", "-");
    for key in KEYS {
        let kind = key.kind.to_string();
        for wanted in [
            key.name,
            key.variable,
            key.default.unwrap_or_default(),
            &kind,
        ] {
            assert!(text.contains(wanted), "{}: no {wanted} in {text}", key.name);
        }
    }
    assert!(!text.contains("Also "), "{text}");
}

#[test]
fn the_input_page_has_every_name_and_the_example_of_its_source_text() {
    let pages = generate::all().unwrap();
    let page = pages
        .iter()
        .find(|page| page.path.ends_with("lake.5"))
        .unwrap();
    assert!(page.bytes.is_ascii());
    let plain = |text: &str| {
        let text = text.replace("\\-", "-").replace("\\*(Aq", "'");
        let text = text.replace("\\[u00B7]", "\u{b7}");
        text.split_whitespace().collect::<String>()
    };
    let page = plain(&String::from_utf8_lossy(&page.bytes));
    let text = include_str!("../../examples/lake/README.md");
    let names = text.split('`').skip(1).step_by(2);
    let names: Vec<&str> = names.filter(|name| !name.contains("\n")).collect();
    assert!(names.len() > 100, "{names:?}");
    for name in names {
        assert!(page.contains(&plain(name)), "no {name} in {page}");
    }
    let records = text.lines().filter(|line| line.starts_with('{'));
    let records: Vec<&str> = records.collect();
    assert_eq!(records.len(), 3);
    for record in records {
        assert!(page.contains(&plain(record)), "no {record} in {page}");
    }
}

/// Asserts the sorted completions of a partial line.
fn check(shell: &str, script: &str, wanted: &str) {
    let Some(program) = tool(shell) else { return };
    let dir = generated();
    let script = script.replace("DIR", dir.path().join("completions").to_str().unwrap());
    let mut command = Command::new(program);
    match shell {
        "bash" => _ = command.args(["--norc", "--noprofile"]),
        "zsh" => _ = command.arg("-f"),
        _ => {}
    }
    let ended = output_with_stdin(command.env("HOME", dir.path()), script.as_bytes());
    let stdout = String::from_utf8_lossy(&ended.stdout).replace('\r', "");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    let mut given: Vec<&str> = stdout
        .lines()
        .filter_map(|line| Some(line.strip_prefix("> ")?.trim()))
        .collect();
    given.sort_unstable();
    assert_eq!(given.join(" "), wanted, "{shell}: {stdout}{stderr}");
}

/// Completes the words that follow, the last of which is partial.
fn bash(words: &str) -> String {
    let count = words.split(' ').count();
    format!(
        "source DIR/distilld.bash\nCOMP_WORDS=(distilld {words})\nCOMP_CWORD={count}\n\
         _distilld distilld \"${{COMP_WORDS[$COMP_CWORD]}}\" \"${{COMP_WORDS[$((COMP_CWORD-1))]}}\"\n\
         printf '> %s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
}

#[test]
fn bash_completes_commands_flags_and_values() {
    check("bash", &bash("st"), "status");
    check("bash", &bash("export --di"), "--dialect");
    check("bash", &bash("export --dialect g"), "go");
    check("bash", &bash("run --onc"), "--once");
    check("bash", &bash("--log-f"), "--log-format");
}

#[test]
fn fish_completes_commands_flags_and_values() {
    let fish = |line: &str| {
        format!(
            "source DIR/distilld.fish\nfor found in (complete -C '{line}'); echo '>' (string split -f1 \\t -- $found); end\n"
        )
    };
    check("fish", &fish("distilld st"), "status");
    check("fish", &fish("distilld export --di"), "--dialect");
    check("fish", &fish("distilld export --dialect g"), "go");
}

/// zsh completes only at a terminal, which its own module provides. The completed line then becomes an argument of
/// `print`, also by simulated keys.
#[test]
fn zsh_completes_commands_flags_and_values() {
    let zsh = |line: &str| {
        format!(
            "zmodload zsh/zpty\nzpty typed zsh -f -i\n\
             zpty -w typed \"PS1= fpath=(DIR \\$fpath); autoload -Uz compinit; compinit -u -D; bindkey -e; print rea''dy\"\n\
             while zpty -r typed got; do [[ $got == *ready* ]] && break; done\n\
             zpty -w -n typed $'distilld {line}\\t\\x01print -r -- \"> \\x05\"\\n'\n\
             while zpty -r typed got; do [[ $got == '> '* ]] && break; done\n\
             print -r -- ${{got/distilld /}}\n"
        )
    };
    check("zsh", &zsh("st"), "status");
    check("zsh", &zsh("export --di"), "export --dialect");
    check("zsh", &zsh("export --dialect g"), "export --dialect go");
}
