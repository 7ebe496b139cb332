//! Owns the knowledge of which file systems do not report every change. It asks the kernel for a file system's
//! type and nothing else.

use std::path::Path;

/// File systems where another host, or a process beside the kernel, changes files without an event, by the type
/// that `statfs` gives. Overlays belong here because a file still in the lower layer changes under another inode.
const DEAF: &[(u32, &str)] = &[
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x794c_7630, "overlay"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "openafs"),
    (0x6b41_4653, "afs"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x7375_7245, "coda"),
    (0x786f_4256, "vboxsf"),
];

/// The name of the file system that holds `path`, if it is one whose events cannot be relied on. `None` as well
/// where the kernel does not say: the reconciling scan still finds what changes there.
pub(crate) fn lacks_change_events(path: &Path) -> Option<&'static str> {
    let stat = rustix::fs::statfs(path).ok()?;
    // The type is 32 bits wide in a word of the platform's size and sign.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the upper bits are only the sign of the lower ones"
    )]
    deaf_type(stat.f_type as u32)
}

fn deaf_type(file_system_type: u32) -> Option<&'static str> {
    let known = DEAF.iter().find(|(magic, _)| *magic == file_system_type);
    known.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_and_layered_file_systems_are_deaf() {
        for (magic, name) in [
            (0x6969, "nfs"),
            (0xff53_4d42, "cifs"),
            (0x794c_7630, "overlay"),
        ] {
            assert_eq!(deaf_type(magic), Some(name));
        }
    }

    #[test]
    fn local_file_systems_are_not() {
        for magic in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1] {
            assert_eq!(deaf_type(magic), None, "{magic:x}");
        }
    }

    #[test]
    fn a_missing_path_is_not_called_deaf() {
        assert_eq!(lacks_change_events(Path::new("/no/such/path")), None);
    }
}
