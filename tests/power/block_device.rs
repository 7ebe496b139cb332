//! Disk images as block devices with additional behavior: one logs each write and flush in order, the other fails to
//! read some sectors. Uses qemu-storage-daemon's block drivers, exported to the kernel as a file over FUSE.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::host::HOST_DEADLINE;
use crate::support::kill_harness::wait_until;

/// The required programs.
pub const PROGRAMS: [&str; 4] = ["qemu-storage-daemon", "mkfs.ext4", "mount", "umount"];

/// A device. It ends when this is dropped; nothing may be mounted from it then.
#[derive(Debug)]
pub struct BlockDevice {
    process: Child,
    device: PathBuf,
}

impl BlockDevice {
    /// Creates a device on the image that logs its writes, with an empty log.
    pub fn logged(device: &Path, image: &Path, log: &Path) -> Self {
        File::create(log).unwrap();
        let logged = serde_json::json!({
            "driver": "blklogwrites", "node-name": "top", "file": "image", "log": "log",
            "log-sector-size": 512, "log-super-update-interval": 1,
        });
        Self::start(device, image, &[file("log", log), logged])
    }

    /// Creates a device on the image with some unreadable sectors of 512 bytes.
    pub fn with_bad_sectors(device: &Path, image: &Path, sectors: &[u64]) -> Self {
        let fail = |sector| {
            serde_json::json!({
                "event": "none", "iotype": "read", "sector": sector, "errno": 5, "once": false,
            })
        };
        let rules: Vec<_> = sectors.iter().map(fail).collect();
        let bad = serde_json::json!({
            "driver": "blkdebug", "node-name": "top", "image": "image", "inject-error": rules,
        });
        Self::start(device, image, &[bad])
    }

    fn start(device: &Path, image: &Path, nodes: &[serde_json::Value]) -> Self {
        File::create(device).unwrap();
        let export = serde_json::json!({
            "type": "fuse", "id": "export", "node-name": "top", "mountpoint": device, "writable": true,
        });
        let mut command = Command::new("qemu-storage-daemon");
        for node in [file("image", image)].iter().chain(nodes) {
            command.args(["--blockdev", &node.to_string()]);
        }
        command.args(["--export", &export.to_string()]);
        let started = Self {
            process: command.stdin(Stdio::null()).spawn().unwrap(),
            device: device.to_owned(),
        };
        let len_bytes = fs::metadata(image).unwrap().len();
        let exists = || Ok(fs::metadata(device).is_ok_and(|found| found.len() == len_bytes));
        assert_eq!(wait_until(HOST_DEADLINE, exists), Ok(true), "no device");
        started
    }

    /// Returns the path of the device, which is a file.
    pub fn path(&self) -> &Path {
        &self.device
    }
}

fn file(name: &str, path: &Path) -> serde_json::Value {
    serde_json::json!({"driver": "file", "node-name": name, "filename": path})
}

impl Drop for BlockDevice {
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
