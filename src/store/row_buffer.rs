//! The rows of a batch, in the pieces in which they arrived. A large piece is not copied: that would double the
//! memory of a long text and the time of a backfill.

/// Pieces up to this length are put together, bytes: each piece costs calls to the disk.
const SMALL_PIECE_BYTES: usize = 128 << 10;

/// Whole rows, each with its newline.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    pieces: Vec<Vec<u8>>,
    len_bytes: usize,
}

impl Rows {
    /// Appends rows.
    pub fn push(&mut self, mut rows: Vec<u8>) {
        if rows.len() < rows.capacity() / 4 {
            // Made where there was room for many more: that room would wait with them.
            rows.shrink_to_fit();
        }
        self.len_bytes += rows.len();
        match self.pieces.last_mut() {
            Some(last) if rows.len() <= SMALL_PIECE_BYTES && last.len() <= SMALL_PIECE_BYTES => {
                last.extend_from_slice(&rows);
            }
            _ if rows.is_empty() => {}
            _ => self.pieces.push(rows),
        }
    }

    /// The rows, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(Vec::as_slice)
    }

    /// Returns the buffers that hold the rows.
    pub fn into_pieces(self) -> impl Iterator<Item = Vec<u8>> {
        self.pieces.into_iter()
    }

    /// Returns the rows with their offsets, where the first row is at `offset`.
    pub fn placed(&self, offset: u64) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces().scan(offset, |at, piece| {
            let here = *at;
            *at += piece.len() as u64;
            Some((here, piece))
        })
    }

    /// Returns the row at an offset, with its newline.
    #[must_use]
    pub fn row_at(&self, offset: u64) -> Option<&[u8]> {
        let (at, piece) = self.placed(0).take_while(|(at, _)| *at <= offset).last()?;
        let row = piece.get(usize::try_from(offset - at).ok()?..)?;
        let newline = memchr::memchr(b'\n', row)?;
        row.get(..=newline)
    }

    /// Length of all rows, bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Returns whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }
}

impl From<Vec<u8>> for Rows {
    fn from(rows: Vec<u8>) -> Self {
        let mut all = Self::default();
        all.push(rows);
        all
    }
}

/// Appends further rows without a copy.
impl Extend<Rows> for Rows {
    fn extend<T: IntoIterator<Item = Rows>>(&mut self, more: T) {
        for rows in more {
            self.len_bytes += rows.len_bytes;
            self.pieces.extend(rows.pieces);
        }
    }
}

/// Compares the rows alone: how they are split into pieces has no meaning.
impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.len_bytes == other.len_bytes && self.pieces().flatten().eq(other.pieces().flatten())
    }
}

impl Eq for Rows {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stay_in_order_and_only_small_ones_are_put_together() {
        let (small, large) = (vec![b'a'; 10], vec![b'b'; SMALL_PIECE_BYTES + 1]);
        let mut rows = Rows::default();
        assert!(rows.is_empty());
        let given = [&small, &small, &large, &large, &small, &Vec::new(), &small];
        for piece in given {
            rows.push(piece.clone());
        }
        assert_eq!(
            rows.pieces().map(<[u8]>::len).collect::<Vec<_>>(),
            [20, large.len(), large.len(), 20]
        );
        let all: Vec<u8> = given.into_iter().flatten().copied().collect();
        assert_eq!(rows.len_bytes(), all.len());
        assert_eq!(rows, Rows::from(all.clone()));
        assert_ne!(rows, Rows::from(all[1..].to_vec()));

        let mut twice = rows.clone();
        twice.extend([rows]);
        assert_eq!(twice, Rows::from(all.repeat(2)));
    }
}
