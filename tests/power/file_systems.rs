//! The file systems on which power is cut: how each is made and mounted.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::host::{self, Mounted, must};

/// A file system with its mount options.
pub struct FileSystem {
    /// Its type and what is special about it.
    pub name: &'static str,
    kind: &'static str,
    /// The program that makes it, with its arguments before the image.
    make: &'static [&'static str],
    image_bytes: u64,
    /// A short commit interval where there is one, so that cuts also find data that no sync of the daemon had requested.
    options: &'static str,
}

const MKFS_EXT4: &[&str] = &[
    "mkfs.ext4",
    "-q",
    "-F",
    "-b",
    "4096",
    "-m",
    "0",
    "-E",
    "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
];
/// An image of 64 MiB, which is copied for each cut, is smaller than what is supported.
const MKFS_XFS: &[&str] = &["mkfs.xfs", "-q", "-f", "--unsupported"];
const MKFS_BTRFS: &[&str] = &["mkfs.btrfs", "-q", "-f", "-m", "single", "-d", "single"];

const fn ext4(name: &'static str, options: &'static str) -> FileSystem {
    FileSystem {
        name,
        kind: "ext4",
        make: MKFS_EXT4,
        image_bytes: 32 << 20,
        options,
    }
}

const fn btrfs(name: &'static str, options: &'static str) -> FileSystem {
    FileSystem {
        name,
        kind: "btrfs",
        make: MKFS_BTRFS,
        image_bytes: 64 << 20,
        options,
    }
}

/// ext4 with its default options.
pub const EXT4: FileSystem = ext4("ext4", "commit=1");
/// ext4 whose journal has the data too.
pub const EXT4_JOURNAL: FileSystem = ext4("ext4 data=journal", "commit=1,data=journal");
/// ext4 whose files may have old blocks of the disk after a cut.
pub const EXT4_WRITEBACK: FileSystem = ext4("ext4 data=writeback", "commit=1,data=writeback");
/// ext4 that allocates blocks at each write.
pub const EXT4_NODELALLOC: FileSystem = ext4("ext4 nodelalloc", "commit=1,nodelalloc");
/// btrfs with its default options.
pub const BTRFS: FileSystem = btrfs("btrfs", "commit=1");
/// btrfs that compresses all data.
pub const BTRFS_ZSTD: FileSystem = btrfs("btrfs zstd", "commit=1,compress-force=zstd");
/// xfs with its default options.
pub const XFS: FileSystem = FileSystem {
    name: "xfs",
    kind: "xfs",
    make: MKFS_XFS,
    image_bytes: 64 << 20,
    options: "noatime",
};

impl FileSystem {
    /// Returns whether the host can make and mount it, as [`host::has`].
    pub fn is_available(&self) -> bool {
        // The kernel may load it when it is mounted first; it is listed only then.
        _ = Command::new("modprobe").args(["-q", self.kind]).status();
        let listed = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let is_known = listed.split_whitespace().any(|word| word == self.kind);
        host::has(&self.make[..1]) && host::has_kernel_file_system(is_known, self.kind)
    }

    /// Creates an image with an empty file system.
    pub fn make(&self, image: &Path) {
        let file = File::create(image).unwrap();
        file.set_len(self.image_bytes).unwrap();
        let mut arguments = self.make[1..].to_vec();
        arguments.push(image.to_str().unwrap());
        must(self.make[0], &arguments);
    }

    /// Mounts an image or a device.
    pub fn mount(&self, image: &Path, dir: &Path) -> Mounted {
        if self.kind == "btrfs" {
            // Some kernels remember an unmounted disk and refuse an older copy of it.
            _ = Command::new("btrfs")
                .args(["device", "scan", "--forget"])
                .output();
        }
        Mounted::image(image, dir, self.options)
    }
}
