//! Owns a disk image as a block device whose writes and flushes are logged in the order in which they came:
//! qemu-storage-daemon's `blklogwrites`, given to the kernel as a file over FUSE. Never reads the log itself.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::host::HOST_DEADLINE;
use crate::support::kill_harness::wait_until;

/// The programs it needs.
pub const PROGRAMS: [&str; 4] = ["qemu-storage-daemon", "mkfs.ext4", "mount", "umount"];

/// The device. It ends when this goes out of scope; nothing may be mounted from it then.
#[derive(Debug)]
pub struct LoggedDevice {
    process: Child,
    dir: PathBuf,
}

impl LoggedDevice {
    /// A device on the image, with an empty log; its files lie in `dir`.
    pub fn start(dir: &Path, image: &Path) -> Self {
        let device = Self::device_in(dir);
        for file in [&device, &Self::log_in(dir)] {
            File::create(file).unwrap();
        }
        let node = |driver: &str, name: &str, file: &Path| {
            format!(
                "driver={driver},node-name={name},filename={}",
                file.display()
            )
        };
        let logged = "driver=blklogwrites,node-name=logged,file=image,log=log,log-sector-size=512,\
                      log-super-update-interval=1";
        let export = format!(
            "type=fuse,id=export,node-name=logged,mountpoint={},writable=on",
            device.display()
        );
        let process = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node("file", "image", image)])
            .args(["--blockdev", &node("file", "log", &Self::log_in(dir))])
            .args(["--blockdev", logged, "--export", &export])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let started = Self {
            process,
            dir: dir.to_owned(),
        };
        let len_bytes = fs::metadata(image).unwrap().size();
        let is_there = || Ok(fs::metadata(&device).is_ok_and(|found| found.size() == len_bytes));
        assert_eq!(wait_until(HOST_DEADLINE, is_there), Ok(true), "no device");
        started
    }

    /// The device, as a file.
    pub fn path(&self) -> PathBuf {
        Self::device_in(&self.dir)
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        Self::log_in(&self.dir)
    }

    fn device_in(dir: &Path) -> PathBuf {
        dir.join("device")
    }

    fn log_in(dir: &Path) -> PathBuf {
        dir.join("write-log")
    }
}

impl Drop for LoggedDevice {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let ended = wait_until(HOST_DEADLINE, || {
            Ok(self.process.try_wait().is_ok_and(|status| status.is_some()))
        });
        if ended != Ok(true) {
            _ = self.process.kill();
            _ = self.process.wait();
        }
    }
}
