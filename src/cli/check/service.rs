//! The systemd unit that runs the daemon with this configuration: whether its sandbox lets it do its work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::check::Findings;
use crate::cli::check::files::nearest_existing;
use crate::cli::check::unit::{PROPERTIES, Refusal, Unit, units};
use crate::config::{ListenAddress, Settings};
use crate::lake::path::Stream;
use crate::platform::escape::shell_word;
use crate::platform::rights::{self, groups_of, user_named};

/// Present while systemd is the service manager of the host.
const BOOTED: &str = "/run/systemd/system";

/// Returns the unit that runs the daemon with this configuration file, or with this root if there is no file. systemd
/// is asked, because the drop-ins are merged there.
pub(super) fn find(settings: &Settings, config: Option<&Path>) -> Option<Unit> {
    if !Path::new(BOOTED).is_dir() {
        return None;
    }
    let stem = config.and_then(|file| file.file_stem()?.to_str());
    let instance = stem.map(|stem| format!("distilld@{stem}.service"));
    let output = Command::new("systemctl")
        .args([
            "show",
            "--no-pager",
            "--property",
            PROPERTIES,
            "--",
            "distilld.service",
        ])
        .args(instance)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .ok()?;
    let (flag, path) = match config {
        Some(file) => ("--config", file),
        None => ("--root", settings.root.as_path()),
    };
    let argument = format!(" {flag} {} ", std::path::absolute(path).ok()?.display());
    let mut installed = units(&String::from_utf8_lossy(&output.stdout)).into_iter();
    installed.find(|unit| unit.command.contains(&argument))
}

/// Returns the settings as the unit has them: systemd passes its state directory to the daemon.
pub(super) fn settings_in(unit: &Unit, settings: &Settings) -> Settings {
    let given = unit
        .state_dir
        .clone()
        .filter(|_| !settings.state_dir_explicit);
    Settings {
        state_dir: given.unwrap_or_else(|| settings.state_dir.clone()),
        ..settings.clone()
    }
}

/// Checks that the unit can start, reads the sources and writes the export and the state.
pub(super) fn check_unit(
    unit: &mut Unit,
    settings: &Settings,
    root: &Path,
    findings: &mut Findings,
) {
    let name = unit.name.clone();
    let what = || format!("unit {name}");
    if unit.is_outdated {
        let why = "its files changed since systemd read them";
        findings.warn(what(), why, "run `systemctl daemon-reload`");
    }
    if unit.has_own_root {
        let why = "has a root directory of its own; its paths are not those of the host and are not checked";
        let fix = format!("`systemctl edit {name}`, and use the directories of the host");
        findings.warn(what(), why, fix);
        return;
    }
    if unit.has_own_network
        && let Some(address @ ListenAddress::Tcp(_)) = &settings.listen
    {
        let why = format!(
            "has no network (PrivateNetwork=yes), so that no client reaches `listen = \"{address}\"`"
        );
        let socket = name.replace(".service", ".socket");
        let fix = format!(
            "remove the key, and use `systemctl edit {socket}` with the lines `[Socket]`, `ListenStream=`, \
             `ListenStream={address}`"
        );
        findings.warn(what(), why, fix);
    }
    for setting in unit.resolve(&|path| fs::canonicalize(path).ok()) {
        let why = format!("cannot start, the directory of {setting} does not exist");
        let fix = format!("create it, or write a dash before the path: `systemctl edit {name}`");
        findings.fail(what(), why, fix);
    }
    let [scored, evidence] = Stream::ALL.map(|stream| stream.base(root));
    let distilled = root.join("data/distilled");
    let needs = [
        (scored, false),
        (evidence, false),
        (distilled, true),
        (settings.state_dir.clone(), true),
    ];
    let before = findings.0.len();
    for (dir, writes) in needs {
        let dir = without_links(&dir);
        for refusal in unit.refusals(&dir, writes) {
            let why = format!("{} is {}", refusal.place.display(), refusal.why);
            findings.fail(what(), why, mend(&refusal, unit));
        }
        if let Some(source) = unit.elsewhere(&dir) {
            let (dir, source) = (dir.display(), source.display());
            let why =
                format!("has {source} in the place of {dir}; the findings below are of {dir}");
            let fix = format!("`systemctl cat {name}` shows the line, if that is not intended");
            findings.warn(what(), why, fix);
        }
    }
    if findings.0.len() == before {
        let why = match unit.drop_ins.as_slice() {
            [] => "its sandbox permits the work".to_owned(),
            drop_ins => format!(
                "its sandbox, with {}, permits the work",
                drop_ins.join(", ")
            ),
        };
        findings.ok(what(), why);
    }
}

/// Resolves the links in the part of a path that exists.
fn without_links(dir: &Path) -> PathBuf {
    let existing = nearest_existing(dir);
    let Ok(resolved) = fs::canonicalize(existing) else {
        return dir.to_owned();
    };
    match dir.strip_prefix(existing) {
        Ok(rest) if !rest.as_os_str().is_empty() => resolved.join(rest),
        _ => resolved,
    }
}

/// Returns the steps that let the unit use a directory.
fn mend(refusal: &Refusal, unit: &Unit) -> String {
    let (user, group) = owner_in(unit);
    let create = format!(
        "`install -d -o {user} -g {group} -m 2750 {}`",
        shell_word(&refusal.place)
    );
    let mut steps = Vec::new();
    if refusal.is_missing {
        steps.push(format!(
            "it does not exist, so that its setting has no effect: run {create}"
        ));
    }
    if !refusal.lines.is_empty() {
        let lines = refusal.lines.iter().map(|line| format!("`{line}`"));
        let lines: Vec<String> = lines.collect();
        steps.push(format!(
            "run `systemctl edit {}` and add the lines `[Service]`, {}",
            unit.name,
            lines.join(", ")
        ));
        if !refusal.place.exists() {
            steps.push(format!("create it with {create}"));
        }
    }
    steps.push(format!("then run `systemctl restart {}`", unit.name));
    steps.join("; ")
}

/// Returns the user and the group of a unit as words of a command. A unit without a group has that of its user, which has
/// not always the same name.
fn owner_in(unit: &Unit) -> (String, String) {
    let user = match unit.user.as_str() {
        "" => "root",
        user => user,
    };
    let own_group = || {
        let (own, _) = groups_of(&user_named(user)?)?;
        Some(rights::group(own).to_string())
    };
    let group = match unit.group.as_str() {
        "" => own_group().unwrap_or_else(|| user.to_owned()),
        group => group.to_owned(),
    };
    (shell_word(user), shell_word(&group))
}
