//! The hints for errors of `export --pair` and `verify --pair`.

use std::io::ErrorKind;

use crate::batch::named_pair::error::NamedPairError;
use crate::cli::hints::{REPORT, disk};

pub(super) fn named_pair(error: &NamedPairError) -> String {
    match error {
        NamedPairError::Name(_) => {
            "name the day-file whose rows these are: `--name NAME.jsonl`".to_owned()
        }
        NamedPairError::Missing(path) => format!(
            "list its directory (`ls {}`) and mount it if it is not mounted; write - for EVIDENCE if the pair has none",
            path.parent()
                .filter(|dir| !dir.as_os_str().is_empty())
                .map_or(".".into(), |dir| dir.display().to_string())
        ),
        NamedPairError::NotRegular { path, kind } => match *kind {
            "a FIFO" => format!(
                "write its content to a file first, `cat {} > NAME.jsonl`, and name that: a retry must read the same bytes",
                path.display()
            ),
            _ => format!(
                "name the day-file itself; `ls -l {}` shows what is there",
                path.display()
            ),
        },
        NamedPairError::NoEvidence { .. } => {
            "name the evidence, or `--lengths S,0` for a pair without it".to_owned()
        }
        NamedPairError::Unreadable { path, source } => match source.kind() {
            ErrorKind::PermissionDenied => format!(
                "run it as a user who may read the file and its directories: `namei -l {}`",
                path.display()
            ),
            _ => disk(source, "that file"),
        },
        NamedPairError::Shorter { path, .. } => format!(
            "check whether it was replaced (`stat {}`), then list the pair again and use its lengths of now",
            path.display()
        ),
        NamedPairError::Cut { path, .. } | NamedPairError::Changed(path) => format!(
            "run it again once no process rewrites the file (`stat {}`)",
            path.display()
        ),
        NamedPairError::Overlong { max_line_bytes, .. } => format!(
            "read it with a larger `--max-line-bytes`; or `--max-line-bytes {max_line_bytes}` to count it as malformed, as \
             a lake with this limit does"
        ),
        NamedPairError::Forbidden(_) => REPORT.to_owned(),
        NamedPairError::Write { source, .. } => disk(source, "the output"),
        NamedPairError::Rows { source, .. } => match source.kind() {
            ErrorKind::InvalidData => {
                "pass the rows of one pair, as `distilld export --pair` writes them".to_owned()
            }
            _ => disk(source, "that file"),
        },
    }
}
