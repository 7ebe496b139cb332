//! Reads the kernel's counters of a running process: CPU time, wake-ups, memory, and bytes written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Sums over the tasks of a process. A task that has ended took its share with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Time on a processor, in nanoseconds; `/proc/PID/stat` has it in steps of 10 ms.
    pub cpu: Duration,
    /// Voluntary and involuntary context switches; each is preceded by a wake-up.
    pub switches: u64,
}

impl Activity {
    /// Reads the counters of the process.
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

    /// Returns the difference to an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

/// Returns the CPU time of the calling thread.
pub fn thread_cpu_time() -> io::Result<Duration> {
    let run_ns = first_number(&read(Path::new("/proc/thread-self"), "schedstat")?)?;
    Ok(Duration::from_nanos(run_ns))
}

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// Maximum so far.
    pub peak: u64,
    /// Resident now and not backed by a file.
    pub anonymous: u64,
}

impl Memory {
    /// Reads the current values.
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

/// Bytes on their way to a disk, counted at three levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes passed to `write`, for any kind of file.
    pub given: u64,
    /// Pages of files that it dirtied. A page may be 4 KiB or a multiple of it, depending on the file system, and
    /// counts completely from its first byte: the disk may get less.
    pub dirtied: u64,
    /// Reads the bytes that all processes and the file system wrote to the block device of a file.
    pub device: u64,
}

impl Written {
    /// Reads the counters up to now, also of a process that has ended, until it is waited for; `device` is that of
    /// `file`.
    pub fn of(process_id: u32, file: &Path) -> io::Result<Self> {
        let io = read(&proc_dir(process_id), "io")?;
        Ok(Self {
            given: field(&io, "wchar")?,
            dirtied: field(&io, "write_bytes")?,
            device: device_written_bytes(file)?,
        })
    }

    /// Returns the difference to an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            given: self.given - earlier.given,
            dirtied: self.dirtied - earlier.dirtied,
            device: self.device - earlier.device,
        }
    }
}

/// Returns zero if the file is not on a block device.
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

/// Returns the number after `name:` at the start of a line.
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
