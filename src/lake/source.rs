//! Reads one day-file from an offset: verifies that it is the file read before, returns its new whole lines, and
//! measures the unterminated bytes at its end. Holds one chunk at a time and does not interpret lines.

use std::io;
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::lake::chunk::{Chunk, LineLimits, first_lines_len};
use crate::lake::identity::{
    OFFSET_MAX, SourceChange, SourceIdentity, SourceState, StatFingerprint, seen,
};
use crate::lake::path::{PairPath, Stream};
use crate::lake::read_digest::{BLOCK_LEN, Compared, Comparison, ReadDigest};
use crate::lake::search::{self, FIRST_WINDOW_LEN, WINDOW_LEN};
use crate::lake::walk::open_day_file;
use crate::platform::buffer_pool::Buffers;
use crate::platform::storage::{FileStat, Storage, StorageFile, read_full_at};

/// Leading bytes of a source that are part of its identity.
const HEAD_LEN: u64 = 1_024;
/// Bytes before the offset that are part of its identity.
const TAIL_LEN: u64 = BLOCK_LEN;
/// Maximum new bytes per read. A longer line is read up to the limit for lines.
pub const CHUNK_LEN: u64 = 4 << 20;
/// Maximum bytes of an oversized line skipped per read.
const SKIP_LEN: u64 = 64 << 20;

/// An open day-file, which is a regular file.
#[derive(Debug)]
pub struct Source {
    pub(super) file: Arc<dyn StorageFile>,
    stat: FileStat,
}

impl Source {
    /// Opens a day-file of a pair; `None` if it does not exist. `root` must not contain symbolic links.
    ///
    /// # Errors
    /// The file cannot be read: missing permission, not a regular file, a link that leaves the root, over 1 TiB.
    pub fn open(
        storage: &dyn Storage,
        root: &Path,
        stream: Stream,
        pair: &PairPath,
    ) -> io::Result<Option<Self>> {
        match open_day_file(storage, root, root, stream, pair) {
            Ok(file) => {
                let stat = file.stat()?;
                if stat.len_bytes >= OFFSET_MAX {
                    let kind = io::ErrorKind::InvalidInput;
                    return Err(io::Error::new(kind, "longer than 1 TiB"));
                }
                Ok(Some(Self { file, stat }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the length and times at the time of opening.
    #[must_use]
    pub fn seen(&self) -> StatFingerprint {
        seen(&self.stat)
    }

    /// Returns the full stat at the time of opening.
    #[must_use]
    pub fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// Returns the length at the time of opening, bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.stat.len_bytes
    }

    /// Returns the first difference from the file that `state` was read from; `None` if it is the same file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn rewritten(&self, state: &SourceState) -> io::Result<Option<SourceChange>> {
        let Some(identity) = state.identity else {
            return Ok(None);
        };
        if identity.inode != self.stat.inode || identity.is_gone() {
            return Ok(Some(SourceChange::Replaced));
        }
        if self.stat.len_bytes < state.offset {
            return Ok(Some(SourceChange::Truncated));
        }
        if self.hash(0, u64::from(identity.head_len_bytes))? != identity.head_hash {
            return Ok(Some(SourceChange::HeadChanged));
        }
        let tail_len = u64::from(identity.tail_len_bytes);
        let tail = self.read(state.offset - tail_len, state.offset)?;
        if xxh3_64(&tail) != identity.tail_hash {
            return Ok(Some(SourceChange::TailChanged));
        }
        if state.overlong_from.is_some() && tail.last() == Some(&0) {
            // An older state: reserved room was skipped with the line before it, and the lines that were written into it.
            return Ok(Some(SourceChange::Extended));
        }
        let was_unterminated = state.overlong_from.is_none() && tail.last() != Some(&b'\n');
        if was_unterminated && state.offset > 0 && self.continues_after(state.offset)? {
            return Ok(Some(SourceChange::Extended));
        }
        // Many file systems get another number of their device with each boot.
        if identity.device != self.stat.device && !self.has_samples(state)? {
            return Ok(Some(SourceChange::Replaced));
        }
        Ok(None)
    }

    /// Returns whether the file was written to and is as long as when it was read to its end: no line was appended, so
    /// bytes that were read may have been overwritten. A copy that is restored over a damaged day-file does so, with the
    /// same inode, beginning and end.
    #[must_use]
    pub fn is_overwritten(&self, state: &SourceState) -> bool {
        let was_read_whole = state.seen.len_bytes == state.offset && state.identity.is_some();
        was_read_whole
            && state.seen.len_bytes == self.stat.len_bytes
            && state.seen.modified_ns != self.stat.modified_ns
    }

    /// Returns whether bytes that were read may have been overwritten although the length and the time of modification are
    /// those of that read: a tool can put that time back, but not that of the inode.
    #[must_use]
    pub fn may_be_overwritten(&self, state: &SourceState) -> bool {
        let was_read_whole = state.seen.len_bytes == state.offset;
        was_read_whole
            && state.seen.len_bytes == self.stat.len_bytes
            && state.seen.changed_ns != self.stat.changed_ns
    }

    /// Returns whether the samples of what was read of it are unchanged.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn has_samples(&self, state: &SourceState) -> io::Result<bool> {
        state.digest.has_samples_of(&*self.file, state.offset)
    }

    /// Continues a comparison of all that was read of it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn compare(&self, state: &SourceState, done: Comparison) -> io::Result<Compared> {
        state.digest.compare(&*self.file, state.offset, done)
    }

    /// Returns the digest after it was read from `before` up to `offset`; `consumed` are the bytes in between that were
    /// kept.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn digest(
        &self,
        before: &SourceState,
        offset: u64,
        consumed: &[u8],
    ) -> io::Result<ReadDigest> {
        let range = (before.offset, offset);
        before.digest.extended(&*self.file, range, consumed)
    }

    /// Returns whether a line that was read without its newline has gained more than white space. A settled line may be
    /// followed only by its newline.
    fn continues_after(&self, offset: u64) -> io::Result<bool> {
        let to = self.stat.len_bytes.min(offset + FIRST_WINDOW_LEN as u64);
        let next = self.read(offset, to)?;
        let line_end = memchr::memchr(b'\n', &next).unwrap_or(next.len());
        Ok(!next[..line_end].trim_ascii().is_empty())
    }

    /// Returns the identity of this source after it was read from `before` up to `offset`; `consumed` are the bytes in
    /// between that were kept. `None` if the file no longer holds the bytes that were read.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn identify(
        &self,
        before: &SourceState,
        offset: u64,
        consumed: &[u8],
    ) -> io::Result<Option<SourceIdentity>> {
        let Some((head_len, head_hash)) = self.head(before, offset)? else {
            return Ok(None);
        };
        let Some((tail_len, tail_hash)) = self.tail(before, offset, consumed)? else {
            return Ok(None);
        };
        Ok(Some(SourceIdentity {
            device: self.stat.device,
            inode: self.stat.inode,
            head_len_bytes: head_len as u32,
            head_hash,
            tail_len_bytes: tail_len as u32,
            tail_hash,
        }))
    }

    /// Returns length and hash of the head. A head of full length is kept; a shorter one must be a prefix of the new one.
    fn head(&self, before: &SourceState, offset: u64) -> io::Result<Option<(u64, u64)>> {
        let known = before
            .identity
            .map(|identity| (u64::from(identity.head_len_bytes), identity.head_hash));
        if let Some((HEAD_LEN, hash)) = known {
            return Ok(Some((HEAD_LEN, hash)));
        }
        let len = offset.min(HEAD_LEN);
        let bytes = self.read(0, len)?;
        let fits = known.is_none_or(|(len, hash)| {
            bytes
                .get(..len as usize)
                .is_some_and(|beginning| xxh3_64(beginning) == hash)
        });
        Ok((fits && bytes.len() as u64 == len).then(|| (len, xxh3_64(&bytes))))
    }

    /// Returns length and hash of the bytes before `offset` as they were read, not as the file may hold them now.
    fn tail(
        &self,
        before: &SourceState,
        offset: u64,
        consumed: &[u8],
    ) -> io::Result<Option<(u64, u64)>> {
        let len = offset.min(TAIL_LEN);
        if consumed.len() as u64 >= len {
            return Ok(Some((
                len,
                xxh3_64(&consumed[consumed.len() - len as usize..]),
            )));
        }
        // The skipped part of an oversized line between them may be longer than the memory.
        let known_fits = match before.identity {
            Some(identity) => {
                let known_from = before.offset - u64::from(identity.tail_len_bytes);
                xxh3_64(&self.read(known_from, before.offset)?) == identity.tail_hash
            }
            None => true,
        };
        let bytes = self.read(offset - len, offset)?;
        let fits = bytes.len() as u64 == len && known_fits && bytes.ends_with(consumed);
        Ok(fits.then(|| (len, xxh3_64(&bytes))))
    }

    /// Returns whether the next line is longer than a chunk, so that reading it takes more memory than usual.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn next_line_exceeds_chunk(&self, state: &SourceState) -> io::Result<bool> {
        let chunk_end = state.offset + CHUNK_LEN;
        if state.overlong_from.is_some() || self.stat.len_bytes <= chunk_end {
            return Ok(false);
        }
        Ok(search::last_newline(&*self.file, state.offset, chunk_end)?.is_none())
    }

    /// Reads new lines from the offset of `state`. Between calls, `scanned_to` keeps the offset up to which no newline
    /// exists, so that a long line that arrives in many pieces is not searched from its start each time.
    ///
    /// # Errors
    /// The file cannot be read, or was truncated while it was read.
    pub fn next_chunk(
        &self,
        state: &SourceState,
        scanned_to: &mut u64,
        limits: LineLimits,
        take_unterminated: bool,
        buffers: &Buffers,
    ) -> io::Result<Chunk> {
        let end = self.stat.len_bytes;
        if let Some(line_start) = state.overlong_from {
            let skipped = self.skip_oversized(line_start, state.offset)?;
            return Ok(skipped.unwrap_or(self.partial_line(state.offset)));
        }
        let from = state.offset;
        // Short input is searched from its start each time: between two reads a partial line may be truncated and
        // rewritten. The same holds for a line that is read without its newline.
        let is_short = end <= from + WINDOW_LEN as u64;
        if *scanned_to > end || is_short || take_unterminated {
            *scanned_to = from;
        }
        let known_free = (*scanned_to).clamp(from, end.max(from));
        let window_end = end.min(from + CHUNK_LEN).max(known_free);
        let newline = match search::last_newline(&*self.file, known_free, window_end)? {
            None => search::first_newline(
                &*self.file,
                window_end,
                end.min(from + limits.line_bytes_max + 1),
            )?,
            newline => newline,
        };
        if let Some(newline) = newline {
            *scanned_to = 0;
            return self.read_whole(from, newline + 1, buffers);
        }
        if end > from + limits.line_bytes_max
            && let Some(chunk) = self.skip_oversized(from, from + limits.line_bytes_max)?
        {
            return Ok(chunk);
        }
        // Lines may be written over zero bytes later, so these are searched again.
        *scanned_to = search::first_zero(&*self.file, known_free, end)?;
        if take_unterminated && end > from && !self.ends_in_zero()? {
            return self.read_whole(from, end, buffers);
        }
        Ok(self.partial_line(from))
    }

    /// Returns the number of unread bytes after the last newline. Searches back at most one maximum line length.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn unterminated_bytes(&self, state: &SourceState, limits: LineLimits) -> io::Result<u64> {
        let end = self.stat.len_bytes;
        let kept_from = end.saturating_sub(limits.line_bytes_max + 1);
        let from = state.offset.clamp(kept_from, end.max(kept_from));
        let partial_from = match search::last_newline(&*self.file, from, end)? {
            Some(newline) => newline + 1,
            None => state.overlong_from.unwrap_or(state.offset),
        };
        Ok(end.saturating_sub(partial_from))
    }

    /// Reads the bytes of a line at a known location; fewer if the file was truncated.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn line(&self, offset: u64, len_bytes: u32) -> io::Result<Vec<u8>> {
        self.read(offset, offset + u64::from(len_bytes))
    }

    /// Returns the chunk of a file that holds no whole line from `offset` on.
    fn partial_line(&self, offset: u64) -> Chunk {
        Chunk::PartialLine {
            len_bytes: self.stat.len_bytes.saturating_sub(offset),
        }
    }

    /// Skips bytes of an oversized line from `offset` on; `None` where only zero bytes follow, which are reserved room
    /// and not part of the line. The skipped part never ends in a zero byte, because the line may go on there.
    fn skip_oversized(&self, line_start: u64, offset: u64) -> io::Result<Option<Chunk>> {
        let end = self.stat.len_bytes;
        let Some(content) = search::first_content(&*self.file, offset, end)? else {
            return Ok(None);
        };
        let mut content_end = content;
        let newline = search::search(
            &*self.file,
            content,
            end.min(content + SKIP_LEN),
            |at, bytes| {
                if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                    content_end = at + last as u64 + 1;
                }
                memchr::memchr(b'\n', bytes).map(|newline| at + newline as u64)
            },
        )?;
        Ok(Some(Chunk::OversizedLine {
            line_start,
            offset: newline.map_or(content_end, |newline| newline + 1),
            is_complete: newline.is_some(),
        }))
    }

    fn hash(&self, from: u64, len: u64) -> io::Result<u64> {
        Ok(xxh3_64(&self.read(from, from + len)?))
    }

    /// Reads like `read`, but fails if the file was truncated since its stat: half a line must not pass for a whole one.
    fn read_whole(&self, from: u64, to: u64, buffers: &Buffers) -> io::Result<Chunk> {
        let mut bytes = buffers.chunk((to - from) as usize);
        if read_full_at(&*self.file, &mut bytes, from)? == bytes.len() {
            bytes.truncate(first_lines_len(&bytes));
            return Ok(Chunk::Lines(bytes));
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "truncated while it was read",
        ))
    }

    fn read(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; to.saturating_sub(from) as usize];
        let read = read_full_at(&*self.file, &mut bytes, from)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}
