//! The `distilld` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    distilld::cli::main_with(std::env::args_os().collect())
}
