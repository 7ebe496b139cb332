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

/// Bytes on their way to a disk, counted at three places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// What the process gave to `write`, whatever it wrote to.
    pub given: u64,
    /// Pages of files it made dirty. A page may be 4 KiB or, where the file system keeps a file in larger ones, a
    /// multiple of it that counts as a whole for the first byte: the disk may get less.
    pub dirtied: u64,
    /// What the block device that holds a file got from all processes, the file system's own writes included.
    pub device: u64,
}

impl Written {
    /// Up to now, also of a process that has ended, until it is waited for; `device` is that of `file`.
    pub fn of(process_id: u32, file: &Path) -> io::Result<Self> {
        let io = read(&proc_dir(process_id), "io")?;
        Ok(Self {
            given: field(&io, "wchar")?,
            dirtied: field(&io, "write_bytes")?,
            device: device_written_bytes(file)?,
        })
    }

    /// What came since.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            given: self.given - earlier.given,
            dirtied: self.dirtied - earlier.dirtied,
            device: self.device - earlier.device,
        }
    }
}

/// Zero where the file lies on no block device.
fn device_written_bytes(file: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let device = fs::metadata(file)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"));
    let sectors = stat.unwrap_or_default();
    let sectors = sectors.split_whitespace().nth(6).unwrap_or("0");
    Ok(512 * first_number(sectors)?)
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
