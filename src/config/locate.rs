//! The choice of the configuration file: by flag, by variable, or the file of a packaged host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Environment, GlobalArguments, keys};

/// The directory of the packaged configuration. Each `NAME.toml` in it is an instance.
pub const CONFIG_DIR: &str = "/etc/distilld";
/// The instance whose file is read if nothing else is named.
pub const DEFAULT_INSTANCE: &str = "distilld";
/// The stem of the configuration file of `distilld-publish`, which is in the same directory and no instance.
pub(super) const PUBLISHER: &str = "publish";
/// The environment variable that names the configuration file.
pub(super) const CONFIG_VARIABLE: &str = "DISTILLD_CONFIG";
/// The key that names the lake.
const ROOT: &str = "root";

/// Returns the path of an instance's configuration file.
#[must_use]
pub fn instance_file(directory: &Path, instance: &str) -> PathBuf {
    directory.join(format!("{instance}.toml"))
}

/// Returns the name of the instance whose configuration is this file; `None` for a file elsewhere.
#[must_use]
pub fn instance_of<'f>(directory: &Path, file: &'f Path) -> Option<&'f str> {
    let is_instance = file.parent() == Some(directory) && file.extension()? == "toml";
    let name = file.file_stem()?.to_str()?;
    (is_instance && name != PUBLISHER).then_some(name)
}

/// Returns the names of the instances whose configuration is in a directory, in order; none if there is no such directory.
///
/// # Errors
/// The directory cannot be read.
pub fn instances_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(instance_of(directory, &path).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Returns the name of the unit of an instance.
#[must_use]
pub fn unit_of(instance: &str) -> String {
    match instance {
        DEFAULT_INSTANCE => "distilld.service".to_owned(),
        name => format!("distilld@{name}.service"),
    }
}

/// Returns the configuration file: `--config`, `--instance`, `DISTILLD_CONFIG`, or else the default one in `directory`
/// where it exists. The default one has the state directory of its own lake, so a command that names another root does
/// not read it.
pub(super) fn locate(
    flags: &GlobalArguments,
    environment: &Environment,
    directory: &Path,
) -> Option<PathBuf> {
    if let Some(file) = &flags.config {
        return Some(file.clone());
    }
    if let Some(instance) = &flags.instance {
        return Some(instance_file(directory, instance));
    }
    if let Some(file) = environment.get_non_empty(CONFIG_VARIABLE) {
        return Some(file.into());
    }
    let names_root = |key: &keys::Key| environment.get(key.variable).is_some();
    if flags.root.is_some() || keys::find(ROOT).is_some_and(names_root) {
        return None;
    }
    let default = instance_file(directory, DEFAULT_INSTANCE);
    // A file that cannot be examined is read, so that the error names it.
    default.try_exists().unwrap_or(true).then_some(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_chosen_by_flag_then_variable_then_default() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let none = GlobalArguments::default();
        let variable = Environment::from_iter([(CONFIG_VARIABLE, "/by/variable")]);
        let empty = Environment::from_iter([(CONFIG_VARIABLE, "")]);
        let nothing = Environment::default();
        let found = |flags: &GlobalArguments, environment| locate(flags, environment, directory);
        assert_eq!(found(&none, &nothing), None);
        assert_eq!(found(&none, &empty), None);
        let default = directory.join("distilld.toml");
        std::fs::write(&default, "").unwrap();
        assert_eq!(found(&none, &nothing), Some(default.clone()));
        assert_eq!(found(&none, &empty), Some(default));
        assert_eq!(found(&none, &variable), Some("/by/variable".into()));
        let mut flags = GlobalArguments {
            instance: Some("second".to_owned()),
            ..none.clone()
        };
        let second = Some(directory.join("second.toml"));
        assert_eq!(found(&flags, &variable), second);
        flags.config = Some("/by/flag".into());
        assert_eq!(found(&flags, &variable), Some("/by/flag".into()));
    }

    #[test]
    fn a_command_that_names_a_root_does_not_read_the_default_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("distilld.toml"), "").unwrap();
        let flags = GlobalArguments {
            root: Some("/other".into()),
            ..GlobalArguments::default()
        };
        let variable = Environment::from_iter([("LH_DISTILL_ROOT", "/other")]);
        let nothing = Environment::default();
        assert_eq!(locate(&flags, &nothing, directory.path()), None);
        let none = GlobalArguments::default();
        assert_eq!(locate(&none, &variable, directory.path()), None);
    }

    #[test]
    fn only_a_toml_file_of_the_directory_is_an_instance() {
        let directory = Path::new(CONFIG_DIR);
        let named = |file| instance_of(directory, Path::new(file));
        assert_eq!(named("/etc/distilld/second.toml"), Some("second"));
        assert_eq!(named("/etc/distilld/second.toml.dpkg-old"), None);
        assert_eq!(named("/etc/distilld/old/second.toml"), None);
        assert_eq!(named("/etc/distilld/publish.toml"), None);
    }
}
