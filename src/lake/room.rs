//! Room that is reserved at the end of a day-file: zero bytes, into which lines are written later.

use std::io;

use crate::lake::search;
use crate::lake::source::Source;
use crate::platform::storage::read_full_at;

impl Source {
    /// Returns the end of what may hold lines from `offset` on, without reserved room, bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn content_end(&self, offset: u64) -> io::Result<u64> {
        let end = self.len_bytes();
        match self.ends_in_zero()? {
            true => search::first_zero(&*self.file, offset.min(end), end),
            false => Ok(end),
        }
    }

    /// Returns whether the file ends in a zero byte, and so not in a whole line or value.
    pub(super) fn ends_in_zero(&self) -> io::Result<bool> {
        let mut last = [1];
        let from = self.len_bytes().saturating_sub(1);
        Ok(read_full_at(&*self.file, &mut last, from)? == 1 && last == [0])
    }
}
