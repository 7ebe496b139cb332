//! Owns the step from what inotify reports to a [`ChangeHint`]: a filter and a mapping of paths. It runs on the thread
//! of the event source, so it looks at nothing but the event: no file system, no waiting.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RemoveKind};

use crate::daemon::inbox::{ChangeHint, Inbox};
use crate::daemon::watch::SelfTest;
use crate::lake::path::Stream;

/// Names below a stream's base that lead to a day-file: year, month, day, name.
const DAY_FILE_DEPTH: usize = 4;

/// Turns events into hints, and does nothing else with them.
#[derive(Debug)]
pub(super) struct HintSender {
    root: PathBuf,
    wake: Arc<Inbox>,
    self_test: Arc<SelfTest>,
}

impl HintSender {
    /// Sends hints about what lies under `root`, which must be the path the watches are placed with.
    pub(super) fn new(root: PathBuf, wake: Arc<Inbox>, self_test: Arc<SelfTest>) -> HintSender {
        HintSender {
            root,
            wake,
            self_test,
        }
    }
}

impl notify::EventHandler for HintSender {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        self.self_test.hear();
        match event {
            Ok(event) => hints_of(&self.root, &event, |hint| self.wake.hint(hint)),
            // Reading the events failed: whatever they said is lost.
            Err(_) => self.wake.hint(ChangeHint::Rescan),
        }
    }
}

/// What an event can be about, as far as its kind tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Nothing that concerns us: somebody, perhaps we ourselves, opened or read.
    Nothing,
    /// A file's content or rights, never a directory's names.
    File,
    /// A file or a directory.
    Any,
}

fn hints_of(root: &Path, event: &Event, mut send: impl FnMut(ChangeHint)) {
    // The event that says events were lost has no path, so this must come first.
    if event.need_rescan() {
        send(ChangeHint::Rescan);
        return;
    }
    let subject = subject_of(event.kind);
    if subject == Subject::Nothing {
        return;
    }
    for path in &event.paths {
        match hint_of_path(root, path) {
            Some(hint) if subject == Subject::Any || matches!(hint, ChangeHint::DayFile { .. }) => {
                send(hint)
            }
            _ => {}
        }
    }
}

fn subject_of(kind: EventKind) -> Subject {
    match kind {
        // Our own reads make these: acting on them would feed itself.
        EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write) => {
            Subject::Nothing
        }
        EventKind::Other => Subject::Nothing,
        // A file that lies where directories are expected must not wake the engine with each write. Other rights
        // on a directory are found by the slow scan: mirroring tools touch directories far too often.
        EventKind::Access(_)
        | EventKind::Create(CreateKind::File)
        | EventKind::Remove(RemoveKind::File)
        | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => Subject::File,
        EventKind::Any | EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(_) => {
            Subject::Any
        }
    }
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
        DAY_FILE_DEPTH if is_day_file_name(relative.as_os_str()) => Some(ChangeHint::DayFile {
            stream,
            relative: relative.to_owned(),
        }),
        _ => None,
    }
}

/// Whether a name, or the path it ends, is a day-file's: case matters, the dot alone is enough of a stem.
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
        assert_eq!(
            hint_of_path(Path::new("/lake"), Path::new(path)),
            want,
            "{path}"
        );
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
    fn a_path_says_what_it_is_a_hint_for() {
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
    }

    #[test]
    fn paths_beside_the_day_files_are_no_hint() {
        check_path("/lake/other", None);
        check_path("/lake/data/distilled", None);
        check_path("/lake/data/distilled/sft/sft_export.jsonl", None);
        check_path("/lake/data/evidence-old/a/b/c/d.jsonl", None);
        check_path("/lake/data/evidence/a/b/c/d.JSONL", None);
        check_path("/lake/data/evidence/a/b/c/d.jsonl.tmp", None);
        check_path("/lake/data/evidence/a/b/c/d/e.jsonl", None);
        check_path("/elsewhere/data/evidence/a/b/c/d.jsonl", None);
    }

    #[test]
    fn reading_is_no_hint() {
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
    fn a_file_where_directories_are_expected_is_no_hint() {
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
    fn other_rights_are_a_hint_for_a_day_file_alone() {
        let rights = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        assert_eq!(hints(rights, "/lake/data/evidence/a/b/c/d.jsonl").len(), 1);
        assert_eq!(hints(rights, "/lake/data/evidence/a/b/c"), []);
        assert_eq!(hints(rights, "/lake/data/evidence"), []);
    }

    #[test]
    fn lost_events_are_a_rescan_though_they_name_no_path() {
        let wake = Arc::new(Inbox::new());
        let mut sender = HintSender::new(PathBuf::from("/lake"), Arc::clone(&wake), Arc::default());
        sender.handle_event(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        let taken = wake.take();
        assert!(taken.rescan && taken.rearm);
        sender.handle_event(Err(notify::Error::generic("read failed")));
        assert!(wake.take().rescan);
    }
}
