//! The `distilld-publish` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    distilld::publish::commands::main_with(std::env::args_os().collect())
}
