//! The packages under test: those that `.ci/packages deb` creates, as `systemd/README.md` describes.

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
        };
        deb(&packages.first, &["--locked", "--no-build"])?;
        deb(
            &packages.second,
            &["--locked", "--no-build", "--fast", "--deb-revision", "2"],
        )?;
        Ok(packages)
    }
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
