//! A lake, its publisher, and the independent reader of the table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended, evidence, scored, scored_as};
use crate::support::tools::{skip, tool};

/// The day-file pair of most tests.
pub const PAIR: &str = "2026/01/01/n.jsonl";

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/publish")
}

/// Compiles a C file of this directory, named without its suffix, for `LD_PRELOAD`. `None` where no compiler is installed.
pub fn preloadable(bench: &Bench, name: &str) -> Option<PathBuf> {
    let library = bench.sibling(&format!("{name}.so"));
    let mut compiler = Command::new(tool("cc")?);
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library);
    let compiler = compiler.arg(here().join(name).with_extension("c"));
    bench.run(compiler.arg("-ldl")).check(0, &[]);
    Some(library)
}

/// Returns the Python of the virtual environment that has the pinned packages.
pub fn python() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let lists = [
            "requirements.txt",
            "../../examples/lakehouse/requirements.txt",
        ];
        let lists = lists.map(|list| fs::read_to_string(here().join(list)).unwrap());
        let lines = lists.iter().flat_map(|list| list.lines());
        let wanted = lines.filter(|line| line.contains("=="));
        let built = Path::new(env!("CARGO_BIN_EXE_distilld"));
        let venv = built.ancestors().nth(2).unwrap().join("lake-venv");
        let python = venv.join("bin/python");
        let check = "import sys, importlib.metadata as m\n\
                     sys.exit(any(m.version(p.split('==')[0].split('[')[0]) != p.split('==')[1] for p in sys.argv[1:]))";
        let has = Command::new(&python)
            .args(["-c", check])
            .args(wanted)
            .output();
        if has.is_ok_and(|ended| ended.status.success()) {
            return Some(python);
        }
        skip(&format!(
            "not all packages are in {}; python3 -m venv {0} && {0}/bin/pip install -r tests/publish/requirements.txt",
            venv.display()
        ))
    };
    FOUND.get_or_init(find).as_deref()
}

/// A lake whose export is published to a table.
pub struct Publisher {
    pub bench: Bench,
    pub table: String,
    pub host: String,
    /// Variables of the publisher and of the reader.
    pub environment: Vec<(&'static str, String)>,
}

impl Publisher {
    /// A lake with a table of its own.
    pub fn new() -> Publisher {
        let bench = Bench::new();
        let table = bench.sibling("sft").display().to_string();
        Publisher::with(bench, &table, "lake-07", "")
    }

    /// A lake that publishes to a table under a name, with more lines of configuration.
    pub fn with(bench: Bench, table: &str, host: &str, more: &str) -> Publisher {
        let publisher = Publisher {
            bench,
            table: table.to_owned(),
            host: host.to_owned(),
            environment: Vec::new(),
        };
        publisher.configure(more);
        publisher
    }

    /// Writes the configuration.
    pub fn configure(&self, more: &str) {
        let text = format!(
            "export = {:?}\ntable = {:?}\nhost = {:?}\n{more}\n",
            self.bench.export(),
            self.table,
            self.host
        );
        fs::write(self.config(), text).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.bench.sibling("publish.toml")
    }

    /// Returns the command with its configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distilld-publish"));
        command.arg("--config").arg(self.config()).args(arguments);
        command.envs(self.environment.iter().cloned());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.bench.run(&mut self.command(arguments))
    }

    /// Publishes all that is there and returns the account.
    pub fn once(&self) -> Value {
        let ended = self.run(&["once"]);
        ended.check(0, &[]);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// Appends accepted runs with their evidence, and exports them.
    pub fn export_runs(&self, runs: &[&str]) {
        for run in runs {
            self.bench.append_run(PAIR, run);
        }
        self.bench.once();
    }

    /// Appends a verdict on a run and exports it.
    pub fn judge(&self, run: &str, category: &str) {
        self.bench
            .append(Stream::Scored, PAIR, scored_as(run, category));
        self.bench.once();
    }

    /// Returns the rows of this host in the newest version, or in another one, as the independent reader has them.
    pub fn table_rows(&self, version: Option<u64>) -> String {
        self.read_table(&self.table, version).1
    }

    /// As [`Self::table_rows`], of any table, with the number of the version.
    pub fn read_table(&self, table: &str, version: Option<u64>) -> (u64, String) {
        let mut command = Command::new(python().unwrap());
        command
            .arg(here().join("rows.py"))
            .args([table, &self.host]);
        command.args(version.map(|version| version.to_string()));
        command.envs(self.environment.iter().cloned());
        let ended = self.bench.run(&mut command);
        ended.check(0, &[]);
        (ended.stderr.trim().parse().unwrap(), ended.stdout)
    }

    /// Asserts that the table has exactly the effective rows of this host, byte for byte.
    pub fn assert_published(&self) {
        let rows = self.bench.run(&mut self.bench.command(&["rows"]));
        rows.check(0, &[]);
        let found = self.table_rows(None);
        assert!(
            found == rows.stdout,
            "the table has\n{found}\nand the effective rows are\n{}",
            rows.stdout
        );
    }

    /// Returns the runs of this host's rows in a version.
    pub fn table_runs(&self, version: Option<u64>) -> Vec<String> {
        let rows = self.table_rows(version);
        let run = |row: &str| {
            let row: Value = serde_json::from_str(row).unwrap();
            row["source_run_id"].as_str().unwrap().to_owned()
        };
        rows.lines().map(run).collect()
    }
}

/// Returns the lines of many runs, evidence and scored, of which every fourth is rejected later.
pub fn many_runs(name: &str, count: usize) -> (String, String) {
    let (mut all_evidence, mut all_scored) = (String::new(), String::new());
    for n in 0..count {
        let run = format!("{name}-{n}");
        all_evidence += &evidence(&run);
        all_scored += &scored(&run);
        if n % 4 == 3 {
            all_scored += &scored_as(&format!("{name}-{}", n - 2), "rejected");
        }
    }
    (all_evidence, all_scored)
}
