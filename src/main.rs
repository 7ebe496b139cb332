//! The `distilld` program: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    distilld::cli::main_with(std::env::args_os().collect())
}
