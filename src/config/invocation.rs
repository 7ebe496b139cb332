//! The flags that another command needs to find the same lake, so that each command in a hint, a log line or a status
//! works as typed.

use std::path::Path;
use std::sync::OnceLock;

use crate::config::locate::{CONFIG_DIR, CONFIG_VARIABLE, DEFAULT_INSTANCE, instance_of};
use crate::config::{Environment, GlobalArguments, Settings, Sources, keys};
use crate::platform::escape::shell_word;

/// The beginning of a command in a text.
const COMMAND: &str = "`distilld ";
/// The beginning of a command of the service manager in a text.
const UNIT_COMMAND: &str = "`systemctl ";
/// The unit of the default instance.
const UNIT: &str = "distilld";

/// The invocation of this process. It is set once, at the start.
static OF_PROCESS: OnceLock<Invocation> = OnceLock::new();

/// The flags that name the lake of this process, and its unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    flags: String,
    unit: Option<String>,
}

impl Invocation {
    /// Returns the invocation that leads to these settings.
    #[must_use]
    pub fn of_settings(
        flags: &GlobalArguments,
        environment: &Environment,
        settings: &Settings,
        sources: &Sources,
    ) -> Self {
        let by_service = sources.state_dir_is_of_service();
        let state_dir = by_service.then_some(settings.state_dir.as_path());
        Self::new(flags, environment, sources.file.as_deref(), state_dir)
    }

    /// Returns the invocation of a process whose settings are not known, because their file has an error.
    #[must_use]
    pub fn of_arguments(
        flags: &GlobalArguments,
        environment: &Environment,
        file: Option<&Path>,
    ) -> Self {
        Self::new(flags, environment, file, None)
    }

    fn new(
        flags: &GlobalArguments,
        environment: &Environment,
        file: Option<&Path>,
        state_dir_of_service: Option<&Path>,
    ) -> Self {
        let mut invocation = Self::default();
        if let Some(file) = file {
            invocation.add_file(file, environment);
        }
        let given = |name: &str| {
            let key = keys::find(name)?;
            environment.get_non_empty(key.variable).map(Path::new)
        };
        invocation.add("--root", flags.root.as_deref().or_else(|| given("root")));
        let state_dir = flags.state_dir.as_deref();
        let state_dir = state_dir.or_else(|| given("state_dir"));
        invocation.add("--state-dir", state_dir.or(state_dir_of_service));
        invocation
    }

    fn add_file(&mut self, file: &Path, environment: &Environment) {
        match instance_of(Path::new(CONFIG_DIR), file) {
            // Where the variable names another file, only the flag leads to the default one.
            Some(DEFAULT_INSTANCE) if !names_other(environment, file) => {}
            Some(instance) => {
                self.flags += &format!("--instance {} ", shell_word(instance));
                if instance != DEFAULT_INSTANCE {
                    self.unit = Some(format!("{UNIT}@{instance}"));
                }
            }
            None => self.add("--config", Some(file)),
        }
    }

    fn add(&mut self, flag: &str, path: Option<&Path>) {
        if let Some(path) = path.and_then(|path| std::path::absolute(path).ok()) {
            self.flags += &format!("{flag} {} ", shell_word(&path));
        }
    }

    /// Makes this the invocation of the process. Only the first call has an effect.
    pub fn set(self) {
        let _first = OF_PROCESS.set(self);
    }

    /// Returns the text with the flags in each command of distilld that has none, and with this process's unit in each
    /// command of the service manager.
    #[must_use]
    pub fn complete(&self, text: &str) -> String {
        let mut completed = String::with_capacity(text.len() + self.flags.len());
        let mut rest = text;
        while let Some(at) = rest.find('`') {
            let (before, after) = rest.split_at(at);
            completed += before;
            rest = if let Some(command) = after.strip_prefix(COMMAND) {
                completed += COMMAND;
                // A command that begins with a flag is complete already.
                if command.starts_with(|first: char| first.is_ascii_lowercase()) {
                    completed += &self.flags;
                }
                command
            } else if let Some((head, tail)) = self.split_at_unit(after) {
                completed += &head;
                tail
            } else {
                completed.push('`');
                &after[1..]
            };
        }
        completed + rest
    }

    /// Splits a text that begins with a command for the default unit after the name of the unit, and puts that of this
    /// process in its place.
    fn split_at_unit<'t>(&self, text: &'t str) -> Option<(String, &'t str)> {
        let unit = self.unit.as_ref()?;
        let command = text.strip_prefix(UNIT_COMMAND)?;
        let (command, tail) = command.split_once('`')?;
        let head = command.strip_suffix(UNIT)?;
        head.ends_with(' ')
            .then(|| (format!("{UNIT_COMMAND}{head}{unit}`"), tail))
    }
}

/// Returns the text with each command in it completed, so that it works as typed on this host.
#[must_use]
pub fn as_typed(text: &str) -> String {
    match OF_PROCESS.get() {
        Some(invocation) => invocation.complete(text),
        None => text.to_owned(),
    }
}

/// Returns whether the variable names another file.
fn names_other(environment: &Environment, file: &Path) -> bool {
    let variable = environment.get_non_empty(CONFIG_VARIABLE);
    variable.is_some_and(|named| named != file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINT: &str =
        "run `distilld check`; then `systemctl restart distilld`, `distilld --root DIR run`";

    fn completed(flags: &GlobalArguments, environment: &Environment, file: Option<&str>) -> String {
        Invocation::of_arguments(flags, environment, file.map(Path::new)).complete(HINT)
    }

    #[test]
    fn a_hint_needs_no_flag_on_a_host_with_the_default_instance() {
        let (flags, environment) = (GlobalArguments::default(), Environment::default());
        let default = Some("/etc/distilld/distilld.toml");
        assert_eq!(completed(&flags, &environment, default), HINT);
        assert_eq!(completed(&flags, &environment, None), HINT);
    }

    #[test]
    fn a_hint_of_an_instance_names_it_and_its_unit() {
        let (flags, environment) = (GlobalArguments::default(), Environment::default());
        let hint = completed(&flags, &environment, Some("/etc/distilld/second.toml"));
        assert_eq!(
            hint,
            "run `distilld --instance second check`; then `systemctl restart distilld@second`, `distilld --root DIR run`"
        );
        let again = Invocation::of_arguments(
            &flags,
            &environment,
            Some(Path::new("/etc/distilld/second.toml")),
        );
        assert_eq!(again.complete(&hint), hint);
    }

    #[test]
    fn a_hint_has_the_file_the_root_and_the_state_directory_that_were_given() {
        let flags = GlobalArguments {
            root: Some("/my lake".into()),
            ..GlobalArguments::default()
        };
        let environment = Environment::from_iter([("DISTILLD_STATE_DIR", "/state")]);
        let hint = completed(&flags, &environment, Some("/srv/d.toml"));
        assert!(
            hint.starts_with(
                "run `distilld --config /srv/d.toml --root '/my lake' --state-dir /state check`"
            ),
            "{hint}"
        );
    }

    #[test]
    fn text_without_a_command_stays() {
        let invocation = Invocation {
            flags: "--instance x ".to_owned(),
            unit: Some("distilld@x".to_owned()),
        };
        for text in [
            "",
            "`",
            "``",
            "`distilld`",
            "`systemctl edit other`",
            "`ps`; distilld run",
        ] {
            assert_eq!(invocation.complete(text), text);
        }
    }
}
