//! Owns the reading of one day-file from an offset: is it still the file that was read before, which whole lines
//! are new, what stands unterminated at its end. It holds one chunk at a time and never says what a line means.

use crate::lake::identity::{SourceChange, seen};

use crate::lake::chunk::{Chunk, LineLimits};

use std::io;
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::lake::identity::OFFSET_MAX;
use crate::lake::identity::{SourceIdentity, SourceState, StatFingerprint};
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::open_day_file;
use crate::platform::buffer_pool::Buffers;
use crate::platform::storage::{FileStat, Storage, StorageFile, read_full_at};

/// How much of a source's beginning is part of its identity.
const HEAD_LEN: u64 = 1_024;
/// How much before the offset is part of its identity.
const TAIL_LEN: u64 = 256;
/// New bytes read at a time. A longer line is read on up to the limit for lines.
pub const CHUNK_LEN: u64 = 4 << 20;
/// How much of a line that is not kept is passed over in one look.
const PASS_OVER_LEN: u64 = 64 << 20;
/// Window in which the end of a line is looked for when its beginning is not kept.
const WINDOW_LEN: usize = 256 << 10;
/// The first of these windows that is looked at from the end.
const FIRST_WINDOW_LEN: usize = 4 << 10;

/// A day-file that is open and regular.
#[derive(Debug)]
pub struct Source {
    file: Arc<dyn StorageFile>,
    stat: FileStat,
}

impl Source {
    /// Opens a day-file of a pair; `None` if there is none. `root` has no links in it.
    ///
    /// # Errors
    /// Why it cannot be read: rights, not a regular file, a link that leaves the root.
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
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "longer than 1 TiB",
                    ));
                }
                Ok(Some(Self { file, stat }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the file system said when it was opened.
    #[must_use]
    pub fn seen(&self) -> StatFingerprint {
        seen(&self.stat)
    }

    /// The same, and where it lies.
    #[must_use]
    pub fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// Length when it was opened, bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.stat.len_bytes
    }

    /// Whether this is the file that `state` was read from, and if not, what tells.
    ///
    /// # Errors
    /// What the disk says.
    pub fn rewritten(&self, state: &SourceState) -> io::Result<Option<SourceChange>> {
        let Some(identity) = state.identity else {
            return Ok(None);
        };
        if (identity.device, identity.inode) != (self.stat.device, self.stat.inode) {
            return Ok(Some(SourceChange::Replaced));
        }
        if self.stat.len_bytes < state.offset {
            return Ok(Some(SourceChange::Shortened));
        }
        if self.hash(0, u64::from(identity.head_len_bytes))? != identity.head_hash {
            return Ok(Some(SourceChange::Head));
        }
        let tail_len = u64::from(identity.tail_len_bytes);
        let tail = self.read(state.offset - tail_len, state.offset)?;
        if xxh3_64(&tail) != identity.tail_hash {
            return Ok(Some(SourceChange::Tail));
        }
        let was_taken_torn = state.overlong_from.is_none() && tail.last() != Some(&b'\n');
        if was_taken_torn && self.continues_after(state.offset)? {
            return Ok(Some(SourceChange::Extended));
        }
        Ok(None)
    }

    /// Whether a line that was taken without its newline has gained more than white space by now: what may follow a line
    /// that has settled is a newline.
    fn continues_after(&self, offset: u64) -> io::Result<bool> {
        let to = self.stat.len_bytes.min(offset + FIRST_WINDOW_LEN as u64);
        let next = self.read(offset, to)?;
        let line_end = memchr::memchr(b'\n', &next).unwrap_or(next.len());
        Ok(!next[..line_end].trim_ascii().is_empty())
    }

    /// By what this source is known again when it was read from `before` up to `offset`, `consumed` being the bytes in
    /// between that were kept; `None` where it is not the file any more that these bytes were read of.
    ///
    /// # Errors
    /// What the disk says.
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

    /// A head that was hashed whole stays; a shorter one must still be the beginning of the longer.
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

    /// The bytes before `offset` as they were read, not as they may stand there by now.
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
        let known = before
            .identity
            .map_or(0, |identity| u64::from(identity.tail_len_bytes));
        let from = (before.offset - known).min(offset - len);
        let bytes = self.read(from, offset)?;
        let known_from = (before.offset - known - from) as usize;
        let known_fits = before.identity.is_none_or(|identity| {
            let known_bytes = bytes.get(known_from..known_from + known as usize);
            known_bytes.is_some_and(|bytes| xxh3_64(bytes) == identity.tail_hash)
        });
        let fits = bytes.len() as u64 == offset - from && known_fits && bytes.ends_with(consumed);
        Ok(fits.then(|| (len, xxh3_64(&bytes[bytes.len() - len as usize..]))))
    }

    /// Whether the next line is longer than a chunk, so that reading it takes more memory than others do.
    ///
    /// # Errors
    /// What the disk says.
    pub fn next_line_exceeds_chunk(&self, state: &SourceState) -> io::Result<bool> {
        let chunk_end = state.offset + CHUNK_LEN;
        if state.overlong_from.is_some() || self.stat.len_bytes <= chunk_end {
            return Ok(false);
        }
        Ok(self.last_newline(state.offset, chunk_end)?.is_none())
    }

    /// What is new behind the offset of `state`. `scanned_to` remembers, between calls, up to where no newline
    /// was found, so that a long line that arrives in many pieces is not searched from its start each time.
    ///
    /// # Errors
    /// What the disk says.
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
            return self.skip_oversized(line_start, state.offset, end);
        }
        let from = state.offset;
        // What is short is searched from its start each time: a torn line may be cut and written anew, and a hole filled,
        // between two looks. So is a line that is to be taken as it is.
        let is_short = end <= from + WINDOW_LEN as u64;
        if *scanned_to > end || is_short || take_unterminated {
            *scanned_to = from;
        }
        let known_free = (*scanned_to).clamp(from, end.max(from));
        let window_end = end.min(from + CHUNK_LEN).max(known_free);
        let newline = match self.last_newline(known_free, window_end)? {
            None => self.first_newline(window_end, end.min(from + limits.line_bytes_max + 1))?,
            found => found,
        };
        if let Some(newline) = newline {
            *scanned_to = 0;
            return self.read_whole(from, newline + 1, buffers);
        }
        if end > from + limits.line_bytes_max {
            return self.skip_oversized(from, from + limits.line_bytes_max, end);
        }
        *scanned_to = end;
        if take_unterminated && end > from {
            return self.read_whole(from, end, buffers);
        }
        Ok(Chunk::PartialLine {
            len_bytes: end.saturating_sub(from),
        })
    }

    /// Bytes behind the last newline, of those whose line `state` has not read. It is looked for no further from the end
    /// than a line may be long.
    ///
    /// # Errors
    /// What the disk says.
    pub fn unterminated_bytes(&self, state: &SourceState, limits: LineLimits) -> io::Result<u64> {
        let end = self.stat.len_bytes;
        let kept_from = end.saturating_sub(limits.line_bytes_max + 1);
        let from = state.offset.clamp(kept_from, end.max(kept_from));
        let torn_from = match self.last_newline(from, end)? {
            Some(newline) => newline + 1,
            None => state.overlong_from.unwrap_or(state.offset),
        };
        Ok(end.saturating_sub(torn_from))
    }

    /// The bytes of a line whose place is known; fewer if the file has become shorter.
    ///
    /// # Errors
    /// What the disk says.
    pub fn line(&self, offset: u64, len_bytes: u32) -> io::Result<Vec<u8>> {
        self.read(offset, offset + u64::from(len_bytes))
    }

    fn skip_oversized(&self, line_start: u64, offset: u64, end: u64) -> io::Result<Chunk> {
        let end = end.min(offset + PASS_OVER_LEN);
        Ok(match self.first_newline(offset, end)? {
            Some(newline) => Chunk::OversizedLine {
                line_start,
                offset: newline + 1,
                ended: true,
            },
            None => Chunk::OversizedLine {
                line_start,
                offset: end.max(offset),
                ended: false,
            },
        })
    }

    fn first_newline(&self, from: u64, to: u64) -> io::Result<Option<u64>> {
        let mut window = vec![0; WINDOW_LEN.min(to.saturating_sub(from) as usize)];
        let mut at = from;
        while at < to {
            let len = window.len().min((to - at) as usize);
            let read = read_full_at(&*self.file, &mut window[..len], at)?;
            if let Some(newline) = memchr::memchr(b'\n', &window[..read]) {
                return Ok(Some(at + newline as u64));
            }
            if read < len {
                return Ok(None);
            }
            at += read as u64;
        }
        Ok(None)
    }

    fn last_newline(&self, from: u64, to: u64) -> io::Result<Option<u64>> {
        let mut window = Vec::new();
        let mut end = to;
        while end > from {
            // It is almost always near: the window grows only where it is not.
            let grown = (window.len() * 4).clamp(FIRST_WINDOW_LEN, WINDOW_LEN);
            let len = grown.min((end - from) as usize);
            window.resize(len, 0);
            let at = end - len as u64;
            let read = read_full_at(&*self.file, &mut window, at)?;
            if let Some(newline) = memchr::memrchr(b'\n', &window[..read]) {
                return Ok(Some(at + newline as u64));
            }
            end = at;
        }
        Ok(None)
    }

    fn hash(&self, from: u64, len: u64) -> io::Result<u64> {
        Ok(xxh3_64(&self.read(from, from + len)?))
    }

    /// As `read`, but a file cut since it was looked at is an error: half a line must not be taken for one.
    fn read_whole(&self, from: u64, to: u64, buffers: &Buffers) -> io::Result<Chunk> {
        let mut bytes = buffers.chunk((to - from) as usize);
        if read_full_at(&*self.file, &mut bytes, from)? == bytes.len() {
            return Ok(Chunk::Lines(bytes));
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it was cut while it was read",
        ))
    }

    fn read(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; to.saturating_sub(from) as usize];
        let read = read_full_at(&*self.file, &mut bytes, from)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}
