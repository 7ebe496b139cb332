//! Flags, environment and file to settings, as a user writes them; the annotated file in `examples/` is compared with
//! the code.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use distilld::cli::args::GlobalArguments;
use distilld::cli::hints::remedy;
use distilld::config::{ConfigError, Environment, Exclude, KEYS, LogFormat, Settings, Watch};
use tempfile::TempDir;

/// An existing root, a configuration file, flags and an environment.
struct Setup {
    directory: TempDir,
    flags: GlobalArguments,
    environment: Vec<(OsString, OsString)>,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("lake")).unwrap();
        Self {
            directory,
            flags: GlobalArguments::default(),
            environment: Vec::new(),
        }
    }

    /// Creates a setup with the root given by flag, for tests of other keys.
    fn with_root() -> Self {
        let mut setup = Self::new();
        setup.flags.root = Some(setup.root());
        setup
    }

    fn root(&self) -> PathBuf {
        self.path("lake")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(mut self, text: &str) -> Self {
        let file = self.path("distilld.toml");
        fs::write(&file, text).unwrap();
        self.flags.config = Some(file);
        self
    }

    fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        Settings::load(
            &self.flags,
            &Environment::from_iter(self.environment.clone()),
        )
    }

    /// Returns the error's text without the temporary directory.
    fn error(&self) -> String {
        let text = self.load().unwrap_err().to_string();
        text.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

#[test]
fn the_defaults_match_the_documentation() {
    let setup = Setup::with_root();
    let settings = setup.load().unwrap();
    assert_eq!(settings, Settings::with_defaults(setup.root()));
    assert_eq!(
        settings,
        Settings {
            root: setup.root(),
            state_dir: setup.root().join("data/distilled/.distilld"),
            state_dir_explicit: false,
            exclude: Exclude::default(),
            settle: Duration::from_secs(5),
            max_line_bytes: 16 << 20,
            recent_scan: Duration::from_secs(30),
            full_scan: Duration::from_secs(3600),
            poll: Duration::from_secs(1),
            watch: Watch::Auto,
            checkpoint_bytes: 32 << 20,
            listen: None,
            fresh_objective: Duration::from_secs(60),
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
            unused_variables: Vec::new(),
        }
    );
}

#[test]
fn flags_override_variables_and_variables_override_the_file() {
    let mut setup = Setup::with_root()
        .file("log = \"warn\"\nlog_format = \"kv\"\nsettle_ms = 1\npoll_ms = 20\n");
    assert_eq!(setup.load().unwrap().log, "warn");
    assert_eq!(setup.load().unwrap().settle, Duration::from_millis(1));
    setup = setup
        .variable("RUST_LOG", "error")
        .variable("DISTILLD_LOG_FORMAT", "human")
        .variable("DISTILLD_SETTLE_MS", "2");
    let settings = setup.load().unwrap();
    assert_eq!(
        (settings.log.as_str(), settings.log_format),
        ("error", LogFormat::Human)
    );
    assert_eq!(
        (settings.settle, settings.poll),
        (Duration::from_millis(2), Duration::from_millis(20))
    );
    setup.flags.log = Some("debug".to_owned());
    setup.flags.log_format = Some(LogFormat::Json);
    let settings = setup.load().unwrap();
    assert_eq!(
        (settings.log.as_str(), settings.log_format),
        ("debug", LogFormat::Json)
    );
}

#[test]
fn the_root_is_taken_from_flag_then_variable_then_file() {
    let mut setup = Setup::new();
    for name in ["by-flag", "by-variable", "by-file"] {
        fs::create_dir(setup.path(name)).unwrap();
    }
    setup = setup.file("root = \"by-file\"");
    assert_eq!(setup.load().unwrap().root, setup.path("by-file"));
    let by_variable = setup.path("by-variable");
    setup = setup.variable("LH_DISTILL_ROOT", by_variable.clone());
    assert_eq!(setup.load().unwrap().root, by_variable);
    setup.flags.root = Some(setup.path("by-flag"));
    assert_eq!(setup.load().unwrap().root, setup.path("by-flag"));
}

#[test]
fn a_configured_state_directory_precedes_the_one_in_the_root() {
    let check = |setup: &Setup, state_dir: &Path, explicit: bool| {
        let settings = setup.load().unwrap();
        assert_eq!(
            (settings.state_dir.as_path(), settings.state_dir_explicit),
            (state_dir, explicit)
        );
    };
    let mut setup = Setup::with_root();
    check(
        &setup,
        &setup.root().join("data/distilled/.distilld"),
        false,
    );
    setup = setup.variable("STATE_DIRECTORY", "");
    check(
        &setup,
        &setup.root().join("data/distilled/.distilld"),
        false,
    );
    setup = setup.variable("STATE_DIRECTORY", "/var/lib/a:/var/lib/b");
    check(&setup, Path::new("/var/lib/a"), true);
    setup = setup.file("state_dir = \"state\"");
    check(&setup, &setup.path("state"), true);
    setup = setup.variable("DISTILLD_STATE_DIR", "/by/variable");
    check(&setup, Path::new("/by/variable"), true);
    setup.flags.state_dir = Some("/by/flag".into());
    check(&setup, Path::new("/by/flag"), true);
}

#[test]
fn an_invalid_root_is_reported_with_its_remedy() {
    let missing = Setup::new().error();
    for way in [
        "--root",
        "LH_DISTILL_ROOT",
        "`root` of a configuration file",
    ] {
        assert!(missing.contains(way), "{missing}");
    }
    assert!(
        Setup::new()
            .variable("LH_DISTILL_ROOT", "")
            .error()
            .starts_with("LH_DISTILL_ROOT: the root is empty")
    );
    assert!(
        Setup::new()
            .file("\nroot = \"\"")
            .error()
            .starts_with("distilld.toml:2: the root is empty")
    );
    let mut setup = Setup::new();
    setup.flags.root = Some(PathBuf::new());
    assert!(setup.error().starts_with("--root: the root is empty"));
    setup.flags.root = Some(setup.path("nowhere"));
    assert!(
        setup
            .error()
            .starts_with("--root: cannot use the root nowhere: No such file"),
        "{}",
        setup.error()
    );
    let error = setup.load().unwrap_err();
    let fix = remedy(&error).unwrap();
    assert!(fix.contains("mount it if it is not mounted"), "{fix}");
    assert_eq!(error.exit_code(), 1);
    fs::write(setup.path("plain"), "").unwrap();
    setup.flags.root = Some(setup.path("plain"));
    assert!(
        setup
            .error()
            .starts_with("--root: cannot use the root plain: it is not a directory")
    );
    assert_eq!(setup.load().unwrap_err().exit_code(), 78);
}

#[test]
fn an_error_in_the_file_names_file_line_and_key() {
    let check = |text: &str, error: &str| {
        assert_eq!(Setup::with_root().file(text).error(), error, "{text}")
    };
    check(
        "# first\nsettle_ms = 5\nsetle_ms = 5\n",
        "distilld.toml:3: unknown key `setle_ms`; did you mean `settle_ms`?",
    );
    check(
        "max-line-bytes = 1\n",
        "distilld.toml:1: unknown key `max-line-bytes`; did you mean `max_line_bytes`?",
    );
    check(
        "colour = 1\n",
        "distilld.toml:1: unknown key `colour`; known keys: root, state_dir, exclude, settle_ms, \
         max_line_bytes, recent_scan_ms, full_scan_ms, poll_ms, watch, checkpoint_bytes, listen, fresh_objective_ms, log, log_format",
    );
    check(
        "\n[logs]\nlevel = 1\n",
        "distilld.toml:2: unknown key `logs`; did you mean `log`?",
    );
    let settle = "`settle_ms` must be a whole number of milliseconds from 1 to 3600000, but is";
    for (written, found) in [
        ("\"5s\"", "the string \"5s\""),
        ("5.0", "the number 5.0"),
        ("true", "the boolean true"),
        ("[5]", "an array"),
        ("{ a = 1 }", "a table"),
        ("0", "0"),
        ("-1", "-1"),
        ("3_600_001", "3600001"),
        ("99999999999999999999999", "99999999999999999999999"),
    ] {
        check(
            &format!("\nsettle_ms = {written}"),
            &format!("distilld.toml:2: {settle} {found}"),
        );
    }
    check(
        "root = 5",
        "distilld.toml:1: `root` must be the path of a directory, but is the number 5",
    );
    check(
        "state_dir = \"\"",
        "distilld.toml:1: `state_dir` must be the path of a directory, but is empty",
    );
    check(
        "watch = \"inotify\"",
        "distilld.toml:1: `watch` must be one of auto, events, poll, but is \"inotify\"",
    );
    check(
        "watch = \"Poll\"",
        "distilld.toml:1: `watch` must be one of auto, events, poll, but is \"Poll\"",
    );
    check(
        "listen = \"0.0.0.0:80\"",
        "distilld.toml:1: `listen` must be none, a loopback address with a port such as 127.0.0.1:9743 or [::1]:9743, \
         or unix:/PATH, but is \"0.0.0.0:80\", which other hosts could reach, and there is no authentication; \
         use a loopback address and a reverse proxy",
    );
    check(
        "log = \"info,distilld=loud\"",
        "distilld.toml:1: `log` must be a log filter such as \"info\" or \"warn,distilld::lake::source=debug\", but is \
         \"info,distilld=loud\": bad directive \"distilld=loud\": expected LEVEL or TARGET=LEVEL",
    );
}

#[test]
fn the_first_of_several_errors_in_the_file_is_reported() {
    let error = Setup::with_root()
        .file("watch = 1\nb_unknown = 1\na_unknown = 1\n")
        .error();
    assert!(error.starts_with("distilld.toml:1: `watch`"), "{error}");
    let error = Setup::with_root().file("zzz = 1\nwatch = 1\n").error();
    assert!(
        error.starts_with("distilld.toml:1: unknown key `zzz`"),
        "{error}"
    );
}

#[test]
fn an_invalid_or_missing_file_is_reported() {
    let error = Setup::with_root()
        .file("settle_ms = 5\nwatch = poll\n")
        .error();
    assert!(
        error.starts_with("distilld.toml:2: not valid TOML: ") && error.lines().count() == 1,
        "{error}"
    );
    let error = Setup::with_root()
        .file("watch = \"poll\"\nwatch = \"poll\"\n")
        .error();
    assert!(
        error.starts_with("distilld.toml:2: not valid TOML: duplicate key"),
        "{error}"
    );
    let mut setup = Setup::with_root();
    setup.flags.config = Some(setup.path("nowhere.toml"));
    assert!(
        setup
            .error()
            .starts_with("nowhere.toml: cannot read the configuration file: No such file")
    );
    setup.flags.config = Some(setup.root());
    assert!(
        setup
            .error()
            .starts_with("lake: cannot read the configuration file: ")
    );
}

#[test]
fn an_error_in_the_environment_names_the_variable() {
    let check = |name: &str, value: OsString, error: &str| {
        assert_eq!(Setup::with_root().variable(name, value).error(), error);
    };
    check(
        "DISTILLD_POLL_MS",
        "soon".into(),
        "DISTILLD_POLL_MS: `poll_ms` must be a whole number of milliseconds from 10 to 3600000, but is \"soon\"",
    );
    check(
        "DISTILLD_POLL_MS",
        "".into(),
        "DISTILLD_POLL_MS: `poll_ms` must be a whole number of milliseconds from 10 to 3600000, but is \"\"",
    );
    check(
        "DISTILLD_MAX_LINE_BYTES",
        "1023".into(),
        "DISTILLD_MAX_LINE_BYTES: `max_line_bytes` must be a whole number of bytes from 1024 to 134217728, but is \"1023\"",
    );
    check(
        "DISTILLD_STATE_DIR",
        "".into(),
        "DISTILLD_STATE_DIR: `state_dir` must be the path of a directory, but is empty",
    );
    let error = Setup::with_root()
        .variable("RUST_LOG", OsString::from_vec(vec![0xff]))
        .error();
    assert!(
        error.starts_with("RUST_LOG: `log` must be") && error.ends_with("which is not UTF-8"),
        "{error}"
    );
}

#[test]
fn an_overridden_value_is_still_validated() {
    let error = Setup::with_root()
        .file("poll_ms = 1")
        .variable("DISTILLD_POLL_MS", "50")
        .error();
    assert!(error.starts_with("distilld.toml:1: `poll_ms`"), "{error}");
}

#[test]
fn an_empty_filter_in_the_environment_counts_as_unset() {
    assert_eq!(
        Setup::with_root()
            .variable("RUST_LOG", "")
            .load()
            .unwrap()
            .log,
        "info"
    );
}

#[test]
fn unknown_variables_are_kept_for_a_warning() {
    let setup = Setup::with_root()
        .variable("DISTILLD_SETLE_MS", "1")
        .variable("DISTILLD_ROOT", "/r")
        .variable("DISTILLD_POLL_MS", "50")
        .variable("HOME", "/");
    assert_eq!(
        setup.load().unwrap().unused_variables,
        ["DISTILLD_ROOT", "DISTILLD_SETLE_MS"]
    );
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let other = |name: &str| match name {
        "root" | "state_dir" => "/tmp",
        "watch" => "poll",
        "listen" => "unix:/run/distilld.sock",
        "log" => "error",
        "log_format" => "json",
        _ => "65536",
    };
    let default = Settings::with_defaults("/");
    for key in KEYS {
        let setup = Setup::new()
            .variable("LH_DISTILL_ROOT", "/")
            .variable(key.variable, other(key.name));
        assert_ne!(setup.load().unwrap(), default, "{}", key.name);
    }
}

/// Returns the annotated file with each `#key = value` set.
fn uncommented() -> String {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/distilld.toml"))
            .unwrap();
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_annotated_file_has_every_key_with_its_default() {
    let file: toml::Table = uncommented().parse().unwrap();
    let mut written: Vec<&str> = file.keys().map(String::as_str).collect();
    let mut known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    written.sort_unstable();
    known.sort_unstable();
    assert_eq!(written, known);
    for key in KEYS {
        if let Some(default) = key.default {
            let value = match &file[key.name] {
                toml::Value::String(text) => text.clone(),
                toml::Value::Array(list) if list.is_empty() => String::new(),
                value => value.to_string(),
            };
            assert_eq!(value, default, "{}", key.name);
        }
    }
}

#[test]
fn the_annotated_file_is_valid_as_it_is_and_with_all_keys_set() {
    let root_only = |text: String| text.replace("/srv/lakehouse", "lake");
    let setup = Setup::new().file(&root_only(uncommented()));
    let expected = Settings {
        state_dir: "/var/lib/distilld".into(),
        state_dir_explicit: true,
        ..Settings::with_defaults(setup.root())
    };
    assert_eq!(setup.load().unwrap(), expected);
}

#[test]
fn the_annotated_file_states_the_range_and_alternatives_of_each_key() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/distilld.toml"))
            .unwrap();
    for key in KEYS {
        let ways = [Some(key.variable), key.flag];
        for way in ways.into_iter().flatten() {
            assert!(text.contains(way), "{way}");
        }
        if let distilld::config::Kind::Number { min, max, .. } = key.kind {
            assert!(
                text.contains(&format!("{min} to {max}.")),
                "{}: {min} to {max}",
                key.name
            );
        }
    }
}

#[test]
fn the_annotated_file_and_the_help_state_which_keys_need_a_restart() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/distilld.toml"))
            .unwrap();
    for key in KEYS {
        let place = text.find(&format!("\n#{} = ", key.name)).unwrap();
        let comment = text[..place].rsplit("\n\n").next().unwrap();
        assert_eq!(
            comment.contains("A change needs a restart."),
            key.needs_restart,
            "{}",
            key.name
        );
    }
    let needing = KEYS.iter().filter(|key| key.needs_restart);
    let names: Vec<_> = needing.map(|key| format!("`{}`", key.name)).collect();
    let listed = format!("all keys except {}", names.join(", "));
    let mut command = <distilld::cli::args::Arguments as clap::CommandFactory>::command();
    let help = command.render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains(&listed), "no {listed:?} in {help}");
}
