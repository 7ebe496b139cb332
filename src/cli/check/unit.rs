//! The systemd unit of the daemon, as `systemctl show` prints it: its user, and what its sandbox hides or makes
//! read-only. `man systemd.exec` describes the settings; the rules below are those by which systemd sorts its mounts.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

/// The properties that are read, as the argument of `systemctl show --property`.
pub(super) const PROPERTIES: &str = "Id,LoadState,NeedDaemonReload,DropInPaths,ExecStart,User,Group,SupplementaryGroups,\
     DynamicUser,AmbientCapabilities,RootDirectory,RootImage,ProtectSystem,ProtectHome,PrivateTmp,ReadWritePaths,\
     ReadOnlyPaths,InaccessiblePaths,TemporaryFileSystem,BindPaths,BindReadOnlyPaths,StateDirectory,CacheDirectory,\
     LogsDirectory,RuntimeDirectory,PrivateNetwork";

/// The effect of a setting on a directory and all below it. If two settings name the same directory, the first one of
/// this order counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    /// Not accessible. No setting for a directory below it changes this.
    Hidden,
    /// Another directory is mounted here.
    Bound {
        source: PathBuf,
        writable: bool,
    },
    /// An empty file system is mounted here.
    Empty,
    ReadOnly,
    Writable,
}

/// One directory of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    place: PathBuf,
    effect: Effect,
    setting: &'static str,
    /// The value as the unit has it.
    value: String,
    /// A missing directory does not keep the unit from starting.
    optional: bool,
}

/// A unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// The name.
    pub name: String,
    /// The paths of the drop-ins.
    pub drop_ins: Vec<String>,
    /// The command.
    pub command: String,
    /// `User=`; empty for root.
    pub user: String,
    /// `Group=`; empty for that of the user.
    pub group: String,
    /// `SupplementaryGroups=`.
    pub other_groups: Vec<String>,
    /// `DynamicUser=`: the user has a number only while the unit runs.
    pub has_dynamic_user: bool,
    /// `AmbientCapabilities=`.
    pub capabilities: String,
    /// Files of the unit changed since systemd read them.
    pub is_outdated: bool,
    /// `RootDirectory=` or `RootImage=`: the paths of the unit are not those of the host.
    pub has_own_root: bool,
    /// `PrivateNetwork=`: the loopback addresses of the unit are not those of the host.
    pub has_own_network: bool,
    /// The first directory of `StateDirectory=`, which systemd creates.
    pub state_dir: Option<PathBuf>,
    entries: Vec<Entry>,
    /// Entries without effect, because their directories do not exist.
    missing: Vec<Entry>,
}

/// What the sandbox of a unit refuses, with the way to change that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The directory.
    pub place: PathBuf,
    /// What is wrong, with the setting.
    pub why: String,
    /// The lines of a drop-in that change it; none if the directory only has to be created.
    pub lines: Vec<String>,
    /// The directory has to be created.
    pub is_missing: bool,
}

/// Reads the output of `systemctl show` for one or more units, and returns those that are installed.
pub(super) fn units(output: &str) -> Vec<Unit> {
    let blocks = output.split("\n\n");
    blocks.filter_map(|block| unit(block.trim())).collect()
}

fn unit(block: &str) -> Option<Unit> {
    let properties = || block.lines().filter_map(|line| line.split_once('='));
    let value = |name: &str| properties().find(|(key, _)| *key == name);
    let value = |name: &str| value(name).map_or("", |(_, value)| value);
    if value("LoadState") != "loaded" {
        return None;
    }
    let root = value("RootDirectory");
    let state_dir = words(value("StateDirectory")).into_iter().next();
    Some(Unit {
        name: value("Id").to_owned(),
        drop_ins: words(value("DropInPaths")),
        command: value("ExecStart").to_owned(),
        user: value("User").to_owned(),
        group: value("Group").to_owned(),
        other_groups: words(value("SupplementaryGroups")),
        has_dynamic_user: value("DynamicUser") == "yes",
        capabilities: value("AmbientCapabilities").to_owned(),
        is_outdated: value("NeedDaemonReload") == "yes",
        has_own_root: !matches!(root, "" | "/") || !value("RootImage").is_empty(),
        has_own_network: value("PrivateNetwork") == "yes",
        state_dir: state_dir.map(|name| Path::new("/var/lib").join(name)),
        entries: properties()
            .flat_map(|(key, value)| entries(key, value))
            .collect(),
        missing: Vec::new(),
    })
}

/// Splits a list as `systemctl show` prints it: a value with a blank or a backslash is in double quotes, in which a
/// backslash precedes each quote and backslash.
fn words(list: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut characters) = (false, list.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '\\' if quoted => word.extend(characters.next()),
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// Returns the directories that one property has an effect on.
fn entries(property: &str, value: &str) -> Vec<Entry> {
    let fixed = |setting, effect: Effect, places: &[&str]| -> Vec<Entry> {
        let entry = |place: &&str| Entry {
            place: PathBuf::from(place),
            effect: effect.clone(),
            setting,
            value: value.to_owned(),
            optional: true,
        };
        places.iter().map(entry).collect()
    };
    let listed = |setting, effect_of: &dyn Fn(&str) -> (PathBuf, Effect)| -> Vec<Entry> {
        let entry = |value: String| {
            let bare = value.trim_start_matches(['-', '+']);
            let (place, effect) = effect_of(bare);
            let optional = value.starts_with('-') || effect == Effect::Empty;
            Entry {
                place,
                effect,
                setting,
                value,
                optional,
            }
        };
        words(value).into_iter().map(entry).collect()
    };
    let same = |effect: Effect| move |path: &str| (PathBuf::from(path), effect.clone());
    let bound = |writable| move |value: &str| bind(value, writable);
    let homes = ["/home", "/root", "/run/user"];
    match (property, value) {
        ("ProtectSystem", "strict") => {
            let system = fixed("ProtectSystem", Effect::ReadOnly, &["/"]);
            // ProtectHome= alone decides about these.
            let homes = fixed("ProtectSystem", Effect::Writable, &homes);
            [system, homes].concat()
        }
        ("ProtectSystem", "full") => fixed(
            "ProtectSystem",
            Effect::ReadOnly,
            &["/usr", "/boot", "/efi", "/etc"],
        ),
        ("ProtectSystem", "yes") => fixed(
            "ProtectSystem",
            Effect::ReadOnly,
            &["/usr", "/boot", "/efi"],
        ),
        ("ProtectHome", "yes") => fixed("ProtectHome", Effect::Hidden, &homes),
        ("ProtectHome", "read-only") => fixed("ProtectHome", Effect::ReadOnly, &homes),
        ("ProtectHome", "tmpfs") => fixed("ProtectHome", Effect::Empty, &homes),
        ("PrivateTmp", "yes" | "connected" | "disconnected") => {
            fixed("PrivateTmp", Effect::Empty, &["/tmp", "/var/tmp"])
        }
        ("ReadWritePaths", _) => listed("ReadWritePaths", &same(Effect::Writable)),
        ("ReadOnlyPaths", _) => listed("ReadOnlyPaths", &same(Effect::ReadOnly)),
        ("InaccessiblePaths", _) => listed("InaccessiblePaths", &same(Effect::Hidden)),
        ("TemporaryFileSystem", _) => listed("TemporaryFileSystem", &|value| {
            let place = value.split(':').next().unwrap_or(value);
            (PathBuf::from(place), Effect::Empty)
        }),
        ("BindPaths", _) => listed("BindPaths", &bound(true)),
        ("BindReadOnlyPaths", _) => listed("BindReadOnlyPaths", &bound(false)),
        ("StateDirectory", _) => created("StateDirectory", "/var/lib", value),
        ("CacheDirectory", _) => created("CacheDirectory", "/var/cache", value),
        ("LogsDirectory", _) => created("LogsDirectory", "/var/log", value),
        ("RuntimeDirectory", _) => created("RuntimeDirectory", "/run", value),
        _ => Vec::new(),
    }
}

fn bind(value: &str, writable: bool) -> (PathBuf, Effect) {
    let mut parts = value.split(':');
    let source = PathBuf::from(parts.next().unwrap_or(value));
    let place = parts.next().map_or_else(|| source.clone(), PathBuf::from);
    (place, Effect::Bound { source, writable })
}

/// Returns the directories that systemd creates for the unit.
fn created(setting: &'static str, base: &str, list: &str) -> Vec<Entry> {
    let entry = |value: String| Entry {
        place: Path::new(base).join(&value),
        effect: Effect::Writable,
        setting,
        value,
        optional: false,
    };
    words(list).into_iter().map(entry).collect()
}

impl Entry {
    /// Returns whether systemd creates the directory before it starts the unit.
    fn is_created(&self) -> bool {
        self.setting.ends_with("Directory") || self.effect == Effect::Empty
    }

    fn depth(&self) -> usize {
        self.place.components().count()
    }
}

impl Unit {
    /// Removes the entries whose directories do not exist, which systemd ignores, and resolves the links in the others.
    /// Returns the missing directories with which the unit cannot start.
    pub(super) fn resolve(&mut self, resolved: &dyn Fn(&Path) -> Option<PathBuf>) -> Vec<String> {
        let mut fatal = Vec::new();
        for mut entry in std::mem::take(&mut self.entries) {
            let source = match &entry.effect {
                Effect::Bound { source, .. } => resolved(source),
                _ => resolved(&entry.place),
            };
            let is_there = source.is_some();
            match (source, &mut entry.effect) {
                (Some(found), Effect::Bound { source, .. }) => *source = found,
                (Some(found), _) => entry.place = found,
                (None, _) => {}
            }
            if is_there || entry.is_created() {
                self.entries.push(entry);
                continue;
            }
            if !entry.optional {
                fatal.push(format!("{}={}", entry.setting, entry.value));
            }
            self.missing.push(entry);
        }
        fatal
    }

    /// Returns what the sandbox refuses in a directory that the daemon reads, or also writes: the directory itself, or
    /// directories below it. `dir` has no links.
    pub(super) fn refusals(&self, dir: &Path, writes: bool) -> Vec<Refusal> {
        if let Some(refusal) = self.refusal(dir, writes) {
            return vec![refusal];
        }
        let below = self.entries.iter().map(|entry| &entry.place);
        let mut below: Vec<&PathBuf> = below.filter(|place| place.starts_with(dir)).collect();
        below.sort_unstable();
        below.dedup();
        let refusals = below
            .into_iter()
            .filter_map(|place| self.refusal(place, writes));
        refusals.collect()
    }

    /// Returns whether systemd creates this directory before it starts the unit.
    pub(super) fn creates(&self, dir: &Path) -> bool {
        let is_it = |entry: &Entry| entry.place == dir && entry.setting.ends_with("Directory");
        self.entries.iter().any(is_it)
    }

    /// Returns the directory that the unit has in the place of `dir`, if it is another one.
    pub(super) fn elsewhere(&self, dir: &Path) -> Option<PathBuf> {
        let covering = self
            .entries
            .iter()
            .filter(|entry| dir.starts_with(&entry.place));
        let mounts = covering.filter_map(|entry| match &entry.effect {
            Effect::Bound { source, .. } => Some((entry, source)),
            _ => None,
        });
        let (entry, source) = mounts.max_by_key(|(entry, _)| entry.depth())?;
        let rest = dir.strip_prefix(&entry.place).ok()?;
        (*source != entry.place).then(|| source.join(rest))
    }

    fn refusal(&self, place: &Path, writes: bool) -> Option<Refusal> {
        let covers = |entry: &&Entry| place.starts_with(&entry.place);
        let nearest = |filter: &dyn Fn(&Effect) -> bool| {
            let covering = self.entries.iter().filter(covers);
            let covering = covering.filter(|entry| filter(&entry.effect));
            covering.max_by_key(|entry| (entry.depth(), Reverse(entry.effect.clone())))
        };
        let is_mount = |effect: &Effect| matches!(effect, Effect::Bound { .. } | Effect::Empty);
        let hidden = nearest(&|effect| *effect == Effect::Hidden)
            .or_else(|| nearest(&is_mount).filter(|entry| entry.effect == Effect::Empty));
        let (entry, what) = match hidden {
            Some(entry) => (entry, "hidden from"),
            None => {
                let entry = nearest(&|effect| *effect != Effect::Hidden)?;
                let read_only = match entry.effect {
                    Effect::Bound { writable, .. } => !writable,
                    ref effect => *effect == Effect::ReadOnly,
                };
                if !read_only || !writes {
                    return None;
                }
                (entry, "read-only for")
            }
        };
        let gives = |missing: &Entry| {
            let effect = &missing.effect;
            covers(&missing) && matches!(effect, Effect::Writable | Effect::Bound { .. })
        };
        let is_given = self.missing.iter().any(gives);
        Some(Refusal {
            place: place.to_owned(),
            why: format!("{what} {} ({}={})", self.name, entry.setting, entry.value),
            lines: match is_given {
                true => Vec::new(),
                false => self.lines(entry, place, writes),
            },
            is_missing: is_given,
        })
    }

    /// Returns the lines of a drop-in that undo the effect of an entry on a directory.
    fn lines(&self, entry: &Entry, place: &Path, writes: bool) -> Vec<String> {
        let path = quoted(&place.display().to_string());
        let mut lines = match (entry.setting, &entry.effect) {
            ("ProtectHome", _) if entry.effect != Effect::ReadOnly => {
                vec!["ProtectHome=read-only".to_owned()]
            }
            ("PrivateTmp", _) => vec!["PrivateTmp=no".to_owned()],
            (_, Effect::Empty) if place != entry.place => match writes {
                true => return vec![format!("BindPaths={path}")],
                false => return vec![format!("BindReadOnlyPaths={path}")],
            },
            (_, Effect::ReadOnly | Effect::Bound { .. }) if place != entry.place => Vec::new(),
            // An empty value removes the list; the others are added again.
            (setting, _) => {
                let others = self.entries.iter().chain(&self.missing);
                let others = others.filter(|other| other.setting == setting && *other != entry);
                let others = others.map(|other| format!("{setting}={}", quoted(&other.value)));
                [format!("{setting}=")].into_iter().chain(others).collect()
            }
        };
        if writes {
            let optional = format!("-{}", place.display());
            lines.push(format!("ReadWritePaths={}", quoted(&optional)));
        }
        lines
    }
}

/// Returns a value as a unit file needs it.
fn quoted(value: &str) -> String {
    let value = value.replace('%', "%%");
    match value.contains([' ', '"', '\\', '\'']) {
        true => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from systemd 252: the packaged unit, an instance with a drop-in, and a unit that does not exist.
    const SHOWN: &str = r#"
ExecStart={ path=/usr/bin/distilld ; argv[]=/usr/bin/distilld --config /etc/distilld/distilld.toml run ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
RootDirectory=
RootImage=
AmbientCapabilities=
User=distilld
Group=distilld
DynamicUser=no
SupplementaryGroups=
ReadWritePaths=-/srv/lakehouse/data/distilled
ReadOnlyPaths=
InaccessiblePaths=
PrivateTmp=yes
ProtectHome=yes
ProtectSystem=strict
RuntimeDirectory=distilld
StateDirectory=distilld
CacheDirectory=
LogsDirectory=
BindPaths=
BindReadOnlyPaths=
TemporaryFileSystem=
Id=distilld.service
LoadState=loaded
DropInPaths=
NeedDaemonReload=no

ExecStart={ path=/usr/bin/distilld ; argv[]=/usr/bin/distilld --config /etc/distilld/odd.toml run ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
RootDirectory=/
RootImage=
AmbientCapabilities=cap_dac_read_search
User=distilld
Group=distilld
DynamicUser=no
SupplementaryGroups=lakehouse adm
ReadWritePaths=-/srv/odd/data/distilled -/mnt/lake/data/distilled "/srv/a b/c" +/srv/plus
ReadOnlyPaths=/opt -/usr
InaccessiblePaths=/mnt/secret -/srv/x
PrivateTmp=yes
ProtectHome=read-only
ProtectSystem=full
RuntimeDirectory=distilld-odd
StateDirectory=distilld/instances/odd "dist\\x20illd"
CacheDirectory=
LogsDirectory=
BindPaths=/real/one:/srv/one:rbind /srv/two:/srv/two:rbind
BindReadOnlyPaths=-/real/three:/srv/three
TemporaryFileSystem=/srv/t:ro /var/q
Id=distilld@odd.service
LoadState=loaded
DropInPaths=/etc/systemd/system/distilld@odd.service.d/x.conf
NeedDaemonReload=yes

ExecStart=
ReadWritePaths=
ProtectHome=no
ProtectSystem=no
Id=nothing.service
LoadState=not-found
"#;

    /// Returns the packaged unit with other values of some properties, on a host that lacks some directories.
    fn packaged(changes: &[(&str, &str)], absent: &[&str]) -> Unit {
        let mut shown = SHOWN.split("\n\n").next().unwrap().to_owned();
        for (property, value) in changes {
            let line = shown
                .lines()
                .find(|line| line.starts_with(&format!("{property}=")));
            shown = shown.replace(line.unwrap(), &format!("{property}={value}"));
        }
        let mut unit = units(&shown).remove(0);
        let is_there = |path: &Path| !absent.iter().any(|absent| path == Path::new(absent));
        let fatal = unit.resolve(&|path| is_there(path).then(|| path.to_owned()));
        assert_eq!(fatal, Vec::<String>::new());
        unit
    }

    /// Returns the refused directories, their reasons and the lines that permit the work.
    fn refused(unit: &Unit, dir: &str, writes: bool) -> Vec<(String, String)> {
        let refusals = unit.refusals(Path::new(dir), writes).into_iter();
        let shown = refusals.map(|refusal| {
            let lines = refusal.lines.join(" | ");
            let missing = if refusal.is_missing { "missing" } else { "" };
            let place = refusal.place.display();
            (
                format!("{place} {}", refusal.why),
                format!("{lines}{missing}"),
            )
        });
        shown.collect()
    }

    const OUTPUT: &str = "/srv/lakehouse/data/distilled";
    const SCORED: &str = "/srv/lakehouse/data/scored-runs";

    #[test]
    fn installed_units_are_read_with_their_drop_ins() {
        let found = units(SHOWN);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].user, "distilld");
        assert_eq!(
            found[0].state_dir.as_deref(),
            Some(Path::new("/var/lib/distilld"))
        );
        assert!(!found[0].is_outdated && !found[0].has_own_root);
        let odd = &found[1];
        assert_eq!(odd.name, "distilld@odd.service");
        assert_eq!(odd.other_groups, ["lakehouse", "adm"]);
        assert_eq!(odd.capabilities, "cap_dac_read_search");
        assert!(odd.is_outdated && !odd.has_own_root && odd.drop_ins.len() == 1);
        assert!(odd.creates(Path::new("/var/lib/dist\\x20illd")));
        let writable = |path: &str| refused(odd, path, true).is_empty();
        assert!(writable("/srv/a b/c/d") && writable("/srv/plus") && writable("/srv/one"));
        assert!(!writable("/srv/three") && !writable("/usr/x") && !writable("/srv/x"));
        assert_eq!(
            odd.elsewhere(Path::new("/srv/one/a")),
            Some("/real/one/a".into())
        );
        assert_eq!(odd.elsewhere(Path::new("/srv/two/a")), None);
    }

    #[test]
    fn a_directory_without_which_the_unit_cannot_start_is_named() {
        let mut odd = units(SHOWN).remove(1);
        let fatal = odd.resolve(&|_| None);
        let expected = [
            "ReadWritePaths=/srv/a b/c",
            "ReadWritePaths=+/srv/plus",
            "ReadOnlyPaths=/opt",
            "InaccessiblePaths=/mnt/secret",
            "BindPaths=/real/one:/srv/one:rbind",
            "BindPaths=/srv/two:/srv/two:rbind",
        ];
        assert_eq!(fatal, expected);
    }

    #[test]
    fn the_packaged_unit_permits_the_default_lake_and_refuses_another_one() {
        let unit = packaged(&[], &[]);
        for (dir, writes) in [(OUTPUT, true), (SCORED, false), ("/var/lib/distilld", true)] {
            assert_eq!(refused(&unit, dir, writes), [], "{dir}");
        }
        let why = "read-only for distilld.service (ProtectSystem=strict)";
        for dir in [
            "/mnt/lake/data/distilled",
            "/mnt/a %n/data/distilled",
            "/var/lib/other",
        ] {
            let value = format!("-{dir}").replace('%', "%%");
            let value = if dir.contains(' ') {
                format!("\"{value}\"")
            } else {
                value
            };
            let fix = format!("ReadWritePaths={value}");
            assert_eq!(refused(&unit, dir, true), [(format!("{dir} {why}"), fix)]);
            assert_eq!(refused(&unit, dir, false), []);
        }
        let absent = packaged(&[], &[OUTPUT]);
        assert_eq!(
            refused(&absent, OUTPUT, true),
            [(format!("{OUTPUT} {why}"), "missing".into())]
        );
    }

    #[test]
    fn each_way_to_hide_a_directory_is_found_with_the_lines_that_show_it() {
        let cases = [
            (
                "ProtectHome",
                "yes",
                "/home/lake/data",
                "ProtectHome=read-only",
            ),
            (
                "ProtectHome",
                "tmpfs",
                "/root/lake/data",
                "ProtectHome=read-only",
            ),
            ("PrivateTmp", "yes", "/var/tmp/lake/data", "PrivateTmp=no"),
            (
                "InaccessiblePaths",
                "/opt -/srv/lakehouse",
                "/srv/lakehouse/data",
                "InaccessiblePaths= | InaccessiblePaths=/opt",
            ),
            (
                "TemporaryFileSystem",
                "/srv:ro",
                "/srv/lakehouse/data",
                "BindReadOnlyPaths=/srv/lakehouse/data",
            ),
            (
                "TemporaryFileSystem",
                "/srv/lake",
                "/srv/lake",
                "TemporaryFileSystem=",
            ),
        ];
        for (property, value, dir, fix) in cases {
            let unit = packaged(&[(property, value)], &[]);
            let own = value.split(' ').next_back().unwrap();
            let expected = (
                format!("{dir} hidden from distilld.service ({property}={own})"),
                fix.to_owned(),
            );
            assert_eq!(refused(&unit, dir, false), [expected], "{property}={value}");
        }
    }

    #[test]
    fn of_two_settings_the_nearest_counts_and_nothing_opens_what_is_inaccessible() {
        let refused_with = |changes: &[(&str, &str)], dir, writes| {
            refused(&packaged(changes, &[]), dir, writes).len()
        };
        let open = [("InaccessiblePaths", "/srv"), ("ReadWritePaths", OUTPUT)];
        assert_eq!(refused_with(&open, OUTPUT, true), 1);
        let bound = [
            ("TemporaryFileSystem", "/srv"),
            ("BindPaths", "/srv/lakehouse"),
        ];
        assert_eq!(refused_with(&bound, OUTPUT, true), 0);
        let both = [("ReadOnlyPaths", OUTPUT), ("ReadWritePaths", OUTPUT)];
        assert_eq!(refused_with(&both, OUTPUT, true), 1);
        let home = [("ProtectHome", "no")];
        assert_eq!(refused_with(&home, "/home/lake", true), 0);
        let home = [
            ("ProtectHome", "read-only"),
            ("ReadWritePaths", "/home/lake"),
        ];
        assert_eq!(refused_with(&home, "/home/lake", true), 0);
        assert_eq!(refused_with(&home, "/home/other", true), 1);
    }

    #[test]
    fn a_part_of_a_directory_that_is_refused_is_found() {
        let part = format!("{SCORED}/2025");
        let unit = packaged(&[("InaccessiblePaths", &part)], &[]);
        assert_eq!(refused(&unit, SCORED, false).len(), 1);
        let part = format!("{OUTPUT}/sft");
        let unit = packaged(&[("ReadOnlyPaths", &part)], &[]);
        assert_eq!(refused(&unit, OUTPUT, true).len(), 1);
        assert_eq!(refused(&unit, OUTPUT, false), []);
    }
}
