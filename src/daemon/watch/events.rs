//! Converts inotify events to [`ChangeHint`]s: a filter and a mapping of paths. It runs on the thread of the event
//! source, so it uses only the event: no file system, no waiting.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RemoveKind};

use crate::daemon::inbox::{ChangeHint, Inbox};
use crate::daemon::watch::SelfTest;
use crate::lake::path::Stream;

/// The number of names below a stream's base that lead to a day-file: year, month, day, name.
const DAY_FILE_DEPTH: usize = 4;

/// Sends the hints of each event to the inbox.
#[derive(Debug)]
pub(super) struct HintSender {
    root: PathBuf,
    inbox: Arc<Inbox>,
    self_test: Arc<SelfTest>,
}

impl HintSender {
    /// Creates a sender for paths below `root`, which must be the path that the watches are placed with.
    pub(super) fn new(root: PathBuf, inbox: Arc<Inbox>, self_test: Arc<SelfTest>) -> HintSender {
        HintSender {
            root,
            inbox,
            self_test,
        }
    }
}

impl notify::EventHandler for HintSender {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        self.self_test.on_event();
        match event {
            Ok(event) => hints_of(&self.root, &event, |hint| self.inbox.hint(hint)),
            // Reading the events failed, so some are lost.
            Err(_) => self.inbox.hint(ChangeHint::Rescan),
        }
    }
}

/// The possible subject of an event, as far as its kind shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Nothing relevant: a process, perhaps this one, opened or read a file.
    Nothing,
    /// A file's content or permissions, never a directory's names.
    File,
    /// A file or a directory.
    Any,
}

fn hints_of(root: &Path, event: &Event, mut send: impl FnMut(ChangeHint)) {
    // The event for lost events has no path, so it must be checked first.
    if event.need_rescan() {
        send(ChangeHint::Rescan);
        return;
    }
    let subject = subject_of(event.kind);
    if subject == Subject::Nothing {
        return;
    }
    for path in &event.paths {
        match day_file_of_path(root, path).or_else(|| hint_of_path(root, path)) {
            Some(hint) if subject == Subject::Any || matches!(hint, ChangeHint::DayFile { .. }) => {
                send(hint)
            }
            _ => {}
        }
    }
}

fn subject_of(kind: EventKind) -> Subject {
    match kind {
        // Our own reads cause these events; reacting to them would cause more.
        EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write) => {
            Subject::Nothing
        }
        EventKind::Other => Subject::Nothing,
        // A file in the place of a directory must not inbox the engine with each write. Changed permissions of a
        // directory are found by the periodic scan: mirroring tools touch directories far too often.
        EventKind::Access(_)
        | EventKind::Create(CreateKind::File)
        | EventKind::Remove(RemoveKind::File)
        | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => Subject::File,
        EventKind::Any | EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(_) => {
            Subject::Any
        }
    }
}

/// Returns the hint of a day-file as [`hint_of_path`] does, for a path as the kernel reports it: at a high rate most events
/// are of such paths, and the comparison of path components took a tenth of the processor.
fn day_file_of_path(root: &Path, path: &Path) -> Option<ChangeHint> {
    let below = path.as_os_str().as_bytes();
    let below = below.strip_prefix(root.as_os_str().as_bytes())?;
    let below = below.strip_prefix(b"/data/")?;
    let (stream, relative) = Stream::ALL.into_iter().find_map(|stream| {
        let relative = below.strip_prefix(stream.dir_name().as_bytes())?;
        Some((stream, relative.strip_prefix(b"/")?))
    })?;
    let is_plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
    let mut names = relative.split(|byte| *byte == b'/');
    let is_day_file = relative.ends_with(b".jsonl")
        && names.clone().count() == DAY_FILE_DEPTH
        && names.all(is_plain);
    is_day_file.then(|| ChangeHint::DayFile {
        stream,
        relative: PathBuf::from(OsStr::from_bytes(relative)),
    })
}

fn hint_of_path(root: &Path, path: &Path) -> Option<ChangeHint> {
    let mut below = path.strip_prefix(root).ok()?.components();
    match below.next() {
        None => return Some(ChangeHint::Root),
        Some(name) if name.as_os_str() != "data" => return None,
        Some(_) => {}
    }
    let Some(base) = below.next() else {
        return Some(ChangeHint::Root);
    };
    let stream = Stream::ALL
        .into_iter()
        .find(|stream| base.as_os_str() == stream.dir_name())?;
    let relative = below.as_path();
    match relative.components().count() {
        0 => Some(ChangeHint::Root),
        depth if depth < DAY_FILE_DEPTH => Some(ChangeHint::Directory {
            stream,
            relative: relative.to_owned(),
        }),
        DAY_FILE_DEPTH if may_be_day_file(relative) => Some(ChangeHint::DayFile {
            stream,
            relative: relative.to_owned(),
        }),
        _ => None,
    }
}

/// Returns whether an event of a name may concern a day-file. A file that was created without a name (`O_TMPFILE`) has
/// `#` and its inode in the events of its writer, also after it was given a name.
fn may_be_day_file(relative: &Path) -> bool {
    let name = relative.file_name().unwrap_or_default().as_bytes();
    let is_unnamed = name
        .strip_prefix(b"#")
        .is_some_and(|inode| inode.iter().all(u8::is_ascii_digit));
    is_unnamed || is_day_file_name(relative.as_os_str())
}

/// Returns whether a name, or the last name of a path, is that of a day-file: case matters, and the stem may be empty.
pub(super) fn is_day_file_name(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::EventHandler as _;
    use notify::event::{DataChange, Flag, MetadataKind, RenameMode};

    fn hints(kind: EventKind, path: &str) -> Vec<ChangeHint> {
        let mut hints = Vec::new();
        let event = Event::new(kind).add_path(PathBuf::from(path));
        hints_of(Path::new("/lake"), &event, |hint| hints.push(hint));
        hints
    }

    fn check_path(path: &str, want: Option<ChangeHint>) {
        let (root, path) = (Path::new("/lake"), Path::new(path));
        assert_eq!(hint_of_path(root, path), want, "{path:?}");
        let of_day_file = day_file_of_path(root, path);
        assert!(of_day_file.is_none() || of_day_file == want, "{path:?}");
        let is_usual = matches!(&want, Some(ChangeHint::DayFile { relative, .. }) if is_day_file_name(relative.as_os_str()));
        assert_eq!(of_day_file.is_some(), is_usual, "{path:?}");
    }

    fn directory(stream: Stream, relative: &str) -> Option<ChangeHint> {
        Some(ChangeHint::Directory {
            stream,
            relative: relative.into(),
        })
    }

    fn day_file(stream: Stream, relative: &str) -> Option<ChangeHint> {
        Some(ChangeHint::DayFile {
            stream,
            relative: relative.into(),
        })
    }

    #[test]
    fn a_path_maps_to_its_hint() {
        check_path("/lake", Some(ChangeHint::Root));
        check_path("/lake/data", Some(ChangeHint::Root));
        check_path("/lake/data/evidence", Some(ChangeHint::Root));
        check_path(
            "/lake/data/scored-runs/2026",
            directory(Stream::Scored, "2026"),
        );
        check_path(
            "/lake/data/scored-runs/2026/05/02",
            directory(Stream::Scored, "2026/05/02"),
        );
        check_path(
            "/lake/data/evidence/a/b/c/d.jsonl",
            day_file(Stream::Evidence, "a/b/c/d.jsonl"),
        );
        check_path(
            "/lake/data/evidence/a/b/c/.jsonl",
            day_file(Stream::Evidence, "a/b/c/.jsonl"),
        );
        check_path(
            "/lake/data/evidence/a/b/c/#1234",
            day_file(Stream::Evidence, "a/b/c/#1234"),
        );
    }

    #[test]
    fn paths_other_than_day_files_give_no_hint() {
        check_path("/lake/other", None);
        check_path("/lake/data/distilled", None);
        check_path("/lake/data/distilled/sft/sft_export.jsonl", None);
        check_path("/lake/data/evidence-old/a/b/c/d.jsonl", None);
        check_path("/lake/data/evidence/a/b/c/d.JSONL", None);
        check_path("/lake/data/evidence/a/b/c/#d.swp", None);
        check_path("/lake/data/evidence/a/b/c/d.jsonl.tmp", None);
        check_path("/lake/data/evidence/a/b/c/d/e.jsonl", None);
        check_path("/elsewhere/data/evidence/a/b/c/d.jsonl", None);
    }

    #[test]
    fn reading_gives_no_hint() {
        let day_file = "/lake/data/evidence/a/b/c/d.jsonl";
        for access in [
            AccessKind::Read,
            AccessKind::Open(AccessMode::Any),
            AccessKind::Close(AccessMode::Read),
        ] {
            assert_eq!(hints(EventKind::Access(access), day_file), []);
        }
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert_eq!(hints(closed, day_file).len(), 1);
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_gives_no_hint() {
        let stray = "/lake/data/evidence/2026/notes.txt";
        assert_eq!(
            hints(EventKind::Modify(ModifyKind::Data(DataChange::Any)), stray),
            []
        );
        assert_eq!(hints(EventKind::Create(CreateKind::File), stray), []);
        assert_eq!(hints(EventKind::Remove(RemoveKind::File), stray), []);
        assert_eq!(hints(EventKind::Create(CreateKind::Folder), stray).len(), 1);
        assert_eq!(
            hints(EventKind::Modify(ModifyKind::Name(RenameMode::To)), stray).len(),
            1
        );
    }

    #[test]
    fn changed_permissions_give_a_hint_only_for_a_day_file() {
        let rights = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        assert_eq!(hints(rights, "/lake/data/evidence/a/b/c/d.jsonl").len(), 1);
        assert_eq!(hints(rights, "/lake/data/evidence/a/b/c"), []);
        assert_eq!(hints(rights, "/lake/data/evidence"), []);
    }

    #[test]
    fn lost_events_cause_a_rescan_although_they_have_no_path() {
        let inbox = Arc::new(Inbox::new());
        let mut sender =
            HintSender::new(PathBuf::from("/lake"), Arc::clone(&inbox), Arc::default());
        sender.handle_event(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        let taken = inbox.take();
        assert!(taken.rescan && taken.rearm);
        sender.handle_event(Err(notify::Error::generic("read failed")));
        assert!(inbox.take().rescan);
    }
}
