//! Owns the manual pages of the commands: distilld(1) and one for each command, as distilld-run(1). Options and
//! descriptions come from the parser, examples and exit codes from the table that `--help` shows.

use std::io;

use crate::cli::args::help;
use crate::config::KEYS;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::cli::generate::Page;

/// The centre of each page's header.
pub(super) const MANUAL: &str = "distilld manual";

/// Generates a page for the program and one for each command.
pub(super) fn pages(program: &Command) -> io::Result<Vec<Page>> {
    let mut pages = vec![page(program, program)?];
    for command in program
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        pages.push(page(program, command)?);
    }
    Ok(pages)
}

fn page(program: &Command, command: &Command) -> io::Result<Page> {
    let is_program = command.get_name() == program.get_name();
    let name = match is_program {
        true => program.get_name().to_owned(),
        false => format!("{}-{}", program.get_name(), command.get_name()),
    };
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(source())
        .manual(MANUAL);
    let mut bytes = Vec::new();
    man.render_title(&mut bytes)?;
    let mut roff = Roff::new();
    set(&mut roff);
    roff.to_writer(&mut bytes)?;
    man.render_name_section(&mut bytes)?;
    let mut roff = Roff::new();
    synopsis(&mut roff, program, command);
    roff.to_writer(&mut bytes)?;
    man.render_description_section(&mut bytes)?;
    man.render_options_section(&mut bytes)?;
    if is_program {
        man.render_subcommands_section(&mut bytes)?;
    }
    let mut roff = Roff::new();
    if let Some(help) = help::find(command.get_name()) {
        examples(&mut roff, help);
        exits(&mut roff, help);
    }
    if is_program {
        environment(&mut roff);
        files(&mut roff);
    }
    see_also(&mut roff, program, &name);
    roff.to_writer(&mut bytes)?;
    Ok(Page {
        path: format!("man/{name}.1"),
        bytes,
    })
}

/// Paths, flags and names of keys are not hyphenated.
pub(super) fn set(roff: &mut Roff) {
    roff.control("nh", []);
    roff.control("ad", ["l"]);
}

/// Formats the command's own flags, each with its value; the global flags are summarized.
fn synopsis(roff: &mut Roff, program: &Command, command: &Command) {
    roff.control("SH", ["SYNOPSIS"]);
    if command.get_name() == program.get_name() {
        roff.text([
            bold(program.get_name()),
            roman(" [GLOBAL OPTIONS] "),
            italic("COMMAND"),
            roman(" [OPTIONS]"),
        ]);
        return;
    }
    let mut line = vec![bold(format!(
        "{} {}",
        program.get_name(),
        command.get_name()
    ))];
    for argument in command.get_arguments().filter(|argument| {
        argument.get_help_heading().is_none()
            && !["help", "version"].contains(&argument.get_id().as_str())
    }) {
        let value = argument
            .get_value_names()
            .map_or(String::new(), |names| names.join(" "));
        match argument.get_long() {
            Some(flag) => {
                line.extend([roman(" ["), bold(format!("--{flag}"))]);
                if argument.get_action().takes_values() {
                    line.extend([roman(" "), italic(value)]);
                }
                line.push(roman("]"));
            }
            None => line.extend([roman(" "), italic(value)]),
        }
    }
    line.push(roman(" [GLOBAL OPTIONS]"));
    roff.text(line);
}

/// Returns the program and its version, for the foot of each page.
pub(super) fn source() -> String {
    format!("distilld {}", env!("CARGO_PKG_VERSION"))
}

fn examples(roff: &mut Roff, help: &help::Help) {
    roff.control("SH", ["EXAMPLES"]);
    for example in help.examples {
        roff.control("TP", []);
        roff.text([bold(example.line)]);
        roff.text([roman(example.does)]);
    }
}

fn exits(roff: &mut Roff, help: &help::Help) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, when) in help.exits {
        roff.control("TP", []);
        roff.text([bold(*code)]);
        roff.text([roman(*when)]);
    }
}

fn environment(roff: &mut Roff) {
    roff.control("SH", ["ENVIRONMENT"]);
    for key in KEYS {
        roff.control("TP", []);
        roff.text([bold(key.variable)]);
        roff.text([
            roman("The key "),
            bold(key.name),
            roman(format!(": {}. See distilld.toml(5).", key.kind)),
        ]);
    }
    for (variable, what) in [
        (
            "STATE_DIRECTORY",
            "Set by systemd: its first entry is the state directory where nothing else names one.",
        ),
        (
            "NO_COLOR, CLICOLOR=0, TERM=dumb",
            "No colours in help, log and errors; TERM=dumb no bars either.",
        ),
    ] {
        roff.control("TP", []);
        roff.text([bold(variable)]);
        roff.text([roman(what)]);
    }
}

fn files(roff: &mut Roff) {
    roff.control("SH", ["FILES"]);
    for (path, what) in [
        (
            "data/scored-runs/YYYY/MM/DD/NAME.jsonl",
            "scored runs, one JSON object a line; read, never written",
        ),
        (
            "data/evidence/YYYY/MM/DD/NAME.jsonl",
            "the evidence of the scored file of the same path; read, never written",
        ),
        (
            "data/distilled/sft/sft_export.jsonl",
            "the export; append only",
        ),
        (
            "data/distilled/.distilld/",
            "the state, unless --state-dir or STATE_DIRECTORY differs; it can be lost",
        ),
        (
            "data/distilled/.distilld.lock",
            "the lock of the daemon that writes this export",
        ),
    ] {
        roff.control("TP", []);
        roff.text([italic(format!("ROOT/{path}"))]);
        roff.text([roman(what)]);
    }
}

fn see_also(roff: &mut Roff, program: &Command, own: &str) {
    roff.control("SH", ["SEE ALSO"]);
    let mut names = vec![(program.get_name().to_owned(), "1")];
    let commands = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    names.extend(commands.map(|command| {
        (
            format!("{}-{}", program.get_name(), command.get_name()),
            "1",
        )
    }));
    names.push(("distilld.toml".to_owned(), "5"));
    names.push(("distilld-lake".to_owned(), "5"));
    names.retain(|(name, _)| name != own);
    let mut line = Vec::new();
    for (at, (name, section)) in names.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        line.extend([
            roman(comma),
            bold(name.as_str()),
            roman(format!("({section})")),
        ]);
    }
    roff.text(line);
}
