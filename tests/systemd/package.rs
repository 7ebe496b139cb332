//! The packages under test: those that `.ci/packages` creates, as `systemd/README.md` describes. That of the publisher has
//! the program that its own tests run, because a release build would take twenty minutes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::run_well;

/// The packages.
#[derive(Debug)]
pub struct Packages {
    /// The package that is installed first.
    pub first: PathBuf,
    /// The same with a higher version, to upgrade to.
    pub second: PathBuf,
    /// The package of the publisher; `None` if its program is not built. In CI it is built.
    pub publisher: Option<PathBuf>,
}

impl Packages {
    /// Builds them below `home`.
    ///
    /// # Errors
    /// A build fails.
    pub fn build(home: &Path) -> Result<Self, String> {
        eprintln!("building the package");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        run_well(Command::new(root.join(".ci/packages")).arg("deb"))?;
        let packages = Self {
            first: home.join("first.deb"),
            second: home.join("second.deb"),
            publisher: publisher(home)?,
        };
        deb(&packages.first, &["--locked", "--no-build"])?;
        deb(
            &packages.second,
            &["--locked", "--no-build", "--fast", "--deb-revision", "2"],
        )?;
        Ok(packages)
    }
}

fn publisher(home: &Path) -> Result<Option<PathBuf>, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = target.with_file_name("debug").join("distilld-publish");
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        // The tests of the publisher have compiled it already, with these features.
        let of_tests = [
            "--features",
            "publish,root-tests",
            "--test",
            "publish",
            "--no-run",
        ];
        run_well(cargo().args(["test", "--locked"]).args(of_tests))?;
    } else if !program.is_file() {
        return Ok(None);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Command::new(root.join(".ci/packages"));
    run_well(files.arg("publish-files").env("PUBLISHER", program))?;
    let package = home.join("publisher.deb");
    deb(
        &package,
        &["--locked", "--no-build", "--fast", "--variant", "publish"],
    )?;
    Ok(Some(package))
}

fn deb(output: &Path, arguments: &[&str]) -> Result<(), String> {
    run_well(
        cargo()
            .arg("deb")
            .args(arguments)
            .arg("--output")
            .arg(output),
    )
    .map(|_| ())
}

/// Returns a command for the current cargo, in the crate's directory.
fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}
