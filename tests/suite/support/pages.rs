//! The manual pages that a program generates, and the real tools that read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::tools::tool;

/// Has a program generate all its files into a directory.
pub fn generated(program: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    let listed = output_of(command.env_clear().arg("generate").arg(dir.path()));
    assert!(
        listed.lines().all(|path| Path::new(path).is_file()),
        "{listed}"
    );
    dir
}

/// Returns the manual pages of a directory of generated files.
pub fn manual_pages(dir: &Path) -> Vec<PathBuf> {
    let pages = fs::read_dir(dir.join("man")).unwrap();
    let mut pages: Vec<PathBuf> = pages.map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    pages
}

/// Returns the output of a command, which must succeed without output on stderr.
pub fn output_of(command: &mut Command) -> String {
    let ended = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        ended.status.success() && stderr.is_empty(),
        "{command:?}: {stderr}"
    );
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// Asserts that groff formats each page without warnings and overlong lines.
pub fn assert_groff_formats_all(dir: &Path) {
    let Some(groff) = tool("groff") else { return };
    for page in manual_pages(dir) {
        let mut command = Command::new(&groff);
        command
            .args(["-man", "-Tutf8", "-ww", "-rLL=80n", "-P-cbou"])
            .arg(&page);
        let text = output_of(&mut command);
        assert!(
            text.contains("NAME") && text.contains("SEE ALSO"),
            "{}",
            page.display()
        );
        for line in text.lines() {
            assert!(line.chars().count() <= 84, "{}: {line}", page.display());
        }
    }
}

/// Asserts that mandoc finds no error in any page.
pub fn assert_mandoc_accepts_all(dir: &Path) {
    let Some(mandoc) = tool("mandoc") else { return };
    for page in manual_pages(dir) {
        let mut command = Command::new(&mandoc);
        output_of(command.args(["-Tlint", "-Werror"]).arg(&page));
    }
}
