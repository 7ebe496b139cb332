//! Runs alternative programs, where installed, that make the same or nearly the same rows of a lake. They keep no
//! state, repeat the whole join each time, and are not crash-safe.

use std::path::Path;
use std::process::Command;

/// A program and its invocation on a lake.
#[derive(Debug)]
pub struct Other {
    /// The name in the table.
    pub name: String,
    command: String,
}

impl Other {
    /// Returns one DuckDB query, where `duckdb` is installed, and the programs given as `NAME=COMMAND`.
    pub fn all(given: &[String]) -> Vec<Other> {
        let duckdb = Command::new("duckdb").arg("--version").output();
        let installed = duckdb.is_ok_and(|output| output.status.success());
        let duckdb = installed.then(|| Other {
            name: "duckdb query".to_owned(),
            command: format!("duckdb -c \"{DUCKDB_QUERY}\""),
        });
        let given = given.iter().filter_map(|given| {
            let (name, command) = given.split_once('=')?;
            Some(Other {
                name: name.to_owned(),
                command: command.to_owned(),
            })
        });
        duckdb.into_iter().chain(given).collect()
    }

    /// Returns a shell command that runs the program: `$ROOT` is the lake, `$OUT` the file to write.
    pub fn command(&self, root: &Path, output: &Path) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {}", self.command)]);
        shell.env("ROOT", root).env("OUT", output);
        shell
    }
}

/// The same join and filter; instruction and context are shorter than distilld's, which makes the query cheaper.
const DUCKDB_QUERY: &str = "COPY (SELECT 1 AS schema_version, s.evidence_run_id AS id, \
    'Source ' || e.provenance.source_file AS instruction, e.model_name AS context, e.text AS response, \
    e.run_id AS source_run_id, s.category AS quality_score, s.provenance AS provenance \
    FROM read_json('$ROOT/data/scored-runs/*/*/*/*.jsonl', format='newline_delimited', filename=true, \
    ignore_errors=true, columns={evidence_run_id:'VARCHAR', category:'VARCHAR', \
    provenance:'STRUCT(source_file VARCHAR, line_offset BIGINT, sig_hash VARCHAR)'}) s \
    JOIN read_json('$ROOT/data/evidence/*/*/*/*.jsonl', format='newline_delimited', filename=true, \
    ignore_errors=true, columns={run_id:'VARCHAR', model_name:'VARCHAR', model_role:'VARCHAR', text:'VARCHAR', \
    provenance:'STRUCT(source_file VARCHAR)'}) e ON s.evidence_run_id = e.run_id \
    AND split_part(s.filename, '/scored-runs/', 2) = split_part(e.filename, '/evidence/', 2) \
    WHERE s.category IN ('accepted', 'partially_accepted') \
    AND e.model_role IN ('executor', 'reviewer', 'applier') AND trim(e.text) <> '') \
    TO '$OUT' (FORMAT json)";
