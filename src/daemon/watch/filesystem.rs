//! The file systems that do not report every change, by the type that the kernel returns.

use std::path::Path;

/// File systems on which another host, or a user-space process, changes files without an event, by their `statfs` type.
/// Overlays are included because a file still in the lower layer changes under another inode.
const WITHOUT_EVENTS: &[(u32, &str)] = &[
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

/// Returns the name of the file system that holds `path` if it does not report every change. Returns `None` as well if
/// `statfs` fails: the periodic scan still finds the changes there.
pub(crate) fn lacks_change_events(path: &Path) -> Option<&'static str> {
    let stat = rustix::fs::statfs(path).ok()?;
    // The type is 32 bits wide in a word of the platform's size and sign.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the upper bits are only the sign of the lower ones"
    )]
    type_without_events(stat.f_type as u32)
}

fn type_without_events(file_system_type: u32) -> Option<&'static str> {
    let known = WITHOUT_EVENTS
        .iter()
        .find(|(magic, _)| *magic == file_system_type);
    known.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_and_layered_file_systems_lack_change_events() {
        for (magic, name) in [
            (0x6969, "nfs"),
            (0xff53_4d42, "cifs"),
            (0x794c_7630, "overlay"),
        ] {
            assert_eq!(type_without_events(magic), Some(name));
        }
    }

    #[test]
    fn local_file_systems_report_changes() {
        for magic in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1] {
            assert_eq!(type_without_events(magic), None, "{magic:x}");
        }
    }

    #[test]
    fn a_missing_path_has_no_known_file_system() {
        assert_eq!(lacks_change_events(Path::new("/no/such/path")), None);
    }
}
