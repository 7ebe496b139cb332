//! Searches a day-file for newlines, zero bytes and other bytes, window by window. Passes over the holes of a sparse file.

use std::io;

use crate::platform::storage::{StorageFile, read_full_at};

/// Maximum bytes searched per system call.
pub(super) const WINDOW_LEN: usize = 256 << 10;
/// Bytes of the first window of a backward search.
pub(super) const FIRST_WINDOW_LEN: usize = 4 << 10;

/// Returns the offset of the first byte that is not zero.
pub(super) fn first_content(file: &dyn StorageFile, from: u64, to: u64) -> io::Result<Option<u64>> {
    search(file, from, to, |at, bytes| {
        let content = bytes.iter().position(|byte| *byte != 0)?;
        Some(at + content as u64)
    })
}

/// Returns the offset of the first zero byte, `to` where there is none.
pub(super) fn first_zero(file: &dyn StorageFile, from: u64, to: u64) -> io::Result<u64> {
    let zero = search(file, from, to, |at, bytes| {
        memchr::memchr(0, bytes).map(|zero| at + zero as u64)
    })?;
    Ok(zero.unwrap_or(to))
}

/// Returns the offset of the first newline.
pub(super) fn first_newline(file: &dyn StorageFile, from: u64, to: u64) -> io::Result<Option<u64>> {
    search(file, from, to, |at, bytes| {
        memchr::memchr(b'\n', bytes).map(|newline| at + newline as u64)
    })
}

/// Calls `find` with each window and its offset, first to last, until it finds something. Passes over the holes of
/// a sparse file: they cost no read. A hole is asked for after a window of zero bytes only.
pub(super) fn search<T>(
    file: &dyn StorageFile,
    from: u64,
    to: u64,
    mut find: impl FnMut(u64, &[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut window = vec![0; WINDOW_LEN.min(to.saturating_sub(from) as usize)];
    let mut at = from;
    while at < to {
        let len = window.len().min((to - at) as usize);
        let read = read_full_at(file, &mut window[..len], at)?;
        if let Some(found) = find(at, &window[..read]) {
            return Ok(Some(found));
        }
        if read < len {
            return Ok(None);
        }
        at += read as u64;
        if is_zero(&window[..read]) && at < to {
            at = file.next_data(at).unwrap_or(to);
        }
    }
    Ok(None)
}

/// Returns the offset of the last newline.
pub(super) fn last_newline(file: &dyn StorageFile, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut window = Vec::new();
    let mut end = to;
    while end > from {
        // The newline is usually near the end, so the window starts small and grows.
        let grown = (window.len() * 4).clamp(FIRST_WINDOW_LEN, WINDOW_LEN);
        let len = grown.min((end - from) as usize);
        window.resize(len, 0);
        let at = end - len as u64;
        let read = read_full_at(file, &mut window, at)?;
        if let Some(newline) = memchr::memrchr(b'\n', &window[..read]) {
            return Ok(Some(at + newline as u64));
        }
        end = at;
        if is_zero(&window[..read]) {
            // Reserved room, most of it a hole: the search from the front passes over it.
            let mut last = None;
            search(file, from, end, |at, bytes| {
                let newline = memchr::memrchr(b'\n', bytes).map(|newline| at + newline as u64);
                last = newline.or(last);
                None::<()>
            })?;
            return Ok(last);
        }
    }
    Ok(None)
}

/// Returns whether all bytes are zero. It ends at the first that is not, which is the first one of most.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
