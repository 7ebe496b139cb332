//! Shared code of the benchmarks: lakes, the measured program, and output. Asserts no time.
#![allow(
    dead_code,
    reason = "each benchmark is a program of its own and uses a part of this"
)]

pub mod daemon;
pub mod figures;
pub mod floor;
pub mod history;
pub mod lake;
pub mod live;
pub mod mixed_load;
pub mod others;
pub mod plot;
pub mod process;
pub mod program;
pub mod samples;
pub mod scorers;
pub mod summary;
pub mod threads;
pub mod watcher;
pub mod written_live;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The error type of all benchmarks.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Returns a benchmark's directory of this name below `target/`, on the file system that builds use.
pub fn bench_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("distilld-bench")
        .join(name)
}

/// Returns the path of the root's export.
pub fn export_path(root: &Path) -> PathBuf {
    root.join("data/distilled/sft/sft_export.jsonl")
}

/// Removes a directory and everything below it; a missing directory is no error.
pub fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Bytes per read or write.
pub const BUFFER_BYTES: usize = 1 << 20;

/// Counts the newlines in a file; a missing file has none.
pub fn lines_in(path: &Path) -> io::Result<u64> {
    let mut file = match File::open(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(lines),
            read => lines += memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64,
        }
    }
}

/// Waits until the file system of `dir` has no unwritten data, so that one run does not include the writes of the
/// previous one.
pub fn settle_disk(dir: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(dir)?)?)
}
