//! What the kernel counts of a process that runs: time on a processor, wake-ups, memory, bytes sent to the disk.
//! It starts and ends nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Sums over the tasks of a process. A task that has ended took its share with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Time on a processor, in nanoseconds; `/proc/PID/stat` has it in steps of 10 ms.
    pub cpu: Duration,
    /// How often a task was taken off its processor, by its own wish or not: each was woken for it before.
    pub switches: u64,
}

impl Activity {
    /// What the process has done up to now.
    pub fn of(process_id: u32) -> io::Result<Self> {
        let mut sum = Self::default();
        for task in fs::read_dir(proc_dir(process_id).join("task"))? {
            let task = task?.path();
            let run_time = first_number(&read(&task, "schedstat")?)?;
            let status = read(&task, "status")?;
            sum.cpu += Duration::from_nanos(run_time);
            sum.switches += field(&status, "voluntary_ctxt_switches")?
                + field(&status, "nonvoluntary_ctxt_switches")?;
        }
        Ok(sum)
    }

    /// What it has done since.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that ever was.
    pub peak: u64,
    /// Resident now and its own: not a page of a file.
    pub anonymous: u64,
}

impl Memory {
    /// As it is now.
    pub fn of(process_id: u32) -> io::Result<Self> {
        let status = read(&proc_dir(process_id), "status")?;
        let bytes = |name| Ok::<_, io::Error>(field(&status, name)? * 1024);
        Ok(Self {
            resident: bytes("VmRSS")?,
            peak: bytes("VmHWM")?,
            anonymous: bytes("RssAnon")?,
        })
    }
}

/// Bytes of pages a process made dirty, which go to the disk; pages that it wrote twice between two syncs count once.
/// To be had of an ended process too, until it is waited for.
pub fn written_bytes(process_id: u32) -> io::Result<u64> {
    field(&read(&proc_dir(process_id), "io")?, "write_bytes")
}

fn proc_dir(process_id: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{process_id}"))
}

fn read(dir: &Path, name: &str) -> io::Result<String> {
    fs::read_to_string(dir.join(name))
}

/// The number behind `name:` at the start of a line.
fn field(text: &str, name: &str) -> io::Result<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    first_number(value.unwrap_or_default())
}

fn first_number(text: &str) -> io::Result<u64> {
    let number = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok());
    number.ok_or_else(|| io::Error::other("the kernel does not count what is measured here"))
}
