//! The naive walk of a lake on a disk, real or simulated.

use std::io;
use std::path::Path;

use distilld::platform::storage::{FileKind, Storage, read_full_at};

use super::Pairs;

/// Returns the pairs below `root`, walked according to the contract: three levels of real directories, names that end
/// in `.jsonl`. An unreadable file counts as missing.
pub fn read_pairs(storage: &dyn Storage, root: &Path) -> io::Result<Pairs> {
    let (scored, evidence) = (root.join("data/scored-runs"), root.join("data/evidence"));
    let mut dirs = vec![String::new()];
    for _ in 0..3 {
        let mut below = Vec::new();
        for dir in &dirs {
            let entries = list(storage, &scored.join(dir))?;
            let real = entries
                .into_iter()
                .filter(|(_, kind)| *kind == FileKind::Directory);
            below.extend(real.map(|(name, _)| format!("{dir}{name}/")));
        }
        dirs = below;
    }
    let mut pairs = Pairs::new();
    for dir in dirs {
        for (name, _) in list(storage, &scored.join(&dir))? {
            let path = format!("{dir}{name}");
            if name.ends_with(".jsonl") {
                let pair = (
                    read(storage, &scored.join(&path)),
                    read(storage, &evidence.join(&path)),
                );
                pairs.insert(path, pair);
            }
        }
    }
    Ok(pairs)
}

fn list(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<(String, FileKind)>> {
    match storage.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(entries) => Ok(entries
            .into_iter()
            .map(|entry| (entry.name.to_string_lossy().into_owned(), entry.kind))
            .collect()),
    }
}

fn read(storage: &dyn Storage, path: &Path) -> Option<Vec<u8>> {
    let file = storage.open_read(path).ok()?;
    let len_bytes = file.stat().ok()?.len_bytes;
    let mut bytes = vec![0; usize::try_from(len_bytes).ok()?];
    let filled = read_full_at(&*file, &mut bytes, 0).ok()?;
    bytes.truncate(filled);
    Some(bytes)
}
