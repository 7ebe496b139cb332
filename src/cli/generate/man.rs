//! Owns the manual pages of the commands: distilld(1) and one for each command, as distilld-run(1). Options and
//! descriptions come from the parser, examples and exit codes from the table that `--help` shows.

use std::io;

use crate::cli::args::help;
use crate::config::{KEYS, Key};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cli::generate::Page;

/// The centre of each page's header.
pub(super) const MANUAL: &str = "distilld manual";

/// The manual of a program: its parser, and what a parser does not have.
pub(crate) struct Manual {
    /// The program, built.
    pub program: Command,
    /// Finds the examples and exit codes of a command.
    pub help: fn(&str) -> Option<&'static help::Help>,
    /// Writes the section about environment variables.
    pub environment: fn(&mut Roff),
    /// The files of the program, and what they are.
    pub files: &'static [(&'static str, &'static str)],
    /// Other pages, by name and section.
    pub see_also: &'static [(&'static str, &'static str)],
}

impl Manual {
    /// Generates a page for the program and one for each command.
    pub(crate) fn pages(&self) -> io::Result<Vec<Page>> {
        let commands = self.program.get_subcommands();
        std::iter::once(&self.program)
            .chain(commands.filter(|command| !command.is_hide_set()))
            .map(|command| self.page(command))
            .collect()
    }

    fn page(&self, command: &Command) -> io::Result<Page> {
        let program = &self.program;
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
        if let Some(help) = (self.help)(command.get_name()) {
            examples(&mut roff, help);
            exits(&mut roff, help);
        }
        if is_program {
            (self.environment)(&mut roff);
            self.write_files(&mut roff);
        }
        self.write_see_also(&mut roff, &name);
        roff.to_writer(&mut bytes)?;
        Ok(Page {
            path: format!("man/{name}.1"),
            bytes,
        })
    }

    fn write_files(&self, roff: &mut Roff) {
        roff.control("SH", ["FILES"]);
        for (path, what) in self.files {
            roff.control("TP", []);
            roff.text([italic(*path)]);
            roff.text([roman(*what)]);
        }
    }

    fn write_see_also(&self, roff: &mut Roff, own: &str) {
        let program = self.program.get_name();
        let commands = self.program.get_subcommands();
        let commands = commands
            .filter(|command| !command.is_hide_set())
            .map(|command| (format!("{program}-{}", command.get_name()), "1"));
        let others = self.see_also.iter();
        let others = others.map(|(name, section)| ((*name).to_owned(), *section));
        let mut names = vec![(program.to_owned(), "1")];
        names.extend(commands.chain(others));
        names.retain(|(name, _)| name != own);
        write_see_also(roff, &names);
    }
}

/// Writes the section that names other pages.
pub(super) fn write_see_also(roff: &mut Roff, names: &[(String, &str)]) {
    roff.control("SH", ["SEE ALSO"]);
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

/// Writes the section about environment variables: each is a tag, followed by its text.
pub(crate) fn write_environment(roff: &mut Roff, variables: &[(&str, Vec<Inline>)]) {
    roff.control("SH", ["ENVIRONMENT"]);
    for (variable, text) in variables {
        roff.control("TP", []);
        roff.text([bold(*variable)]);
        roff.text(text.clone());
    }
}

/// Writes the variables of distilld.
pub(super) fn environment(roff: &mut Roff) {
    let of_key = |key: &Key| {
        let text = vec![
            roman("The key "),
            bold(key.name),
            roman(format!(": {}. See distilld.toml(5).", key.kind)),
        ];
        (key.variable, text)
    };
    let mut variables: Vec<_> = KEYS.iter().map(of_key).collect();
    variables.extend([
        (
            "STATE_DIRECTORY",
            vec![roman("Set by systemd: its first entry is the state directory where nothing else names one.")],
        ),
        (
            "NO_COLOR, CLICOLOR=0, TERM=dumb",
            vec![roman("No colours in help, log and errors; TERM=dumb no bars either.")],
        ),
    ]);
    write_environment(roff, &variables);
}

/// The files of distilld.
pub(super) const FILES: &[(&str, &str)] = &[
    (
        "ROOT/data/scored-runs/YYYY/MM/DD/NAME.jsonl",
        "scored runs, one JSON object a line; read, never written",
    ),
    (
        "ROOT/data/evidence/YYYY/MM/DD/NAME.jsonl",
        "the evidence of the scored file of the same path; read, never written",
    ),
    (
        "ROOT/data/distilled/sft/sft_export.jsonl",
        "the export; append only",
    ),
    (
        "ROOT/data/distilled/.distilld/",
        "the state, unless --state-dir or STATE_DIRECTORY differs; it can be lost",
    ),
    (
        "ROOT/data/distilled/.distilld.lock",
        "the lock of the daemon that writes this export",
    ),
];
