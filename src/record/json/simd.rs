//! The inner loop of the scanner: finds the end of a string and its escapes. Short strings are searched sixteen bytes at a
//! time with the instructions that every processor of the target has; long ones 64 bytes at a time with the widest that
//! this processor has.

use fearless_simd::{Level, Simd, dispatch, i8x16, i8x64, prelude::*, u8x16, u8x64};

const BLOCK_LEN: usize = 16;

/// A run of bytes of a string that need no decoding.
pub(super) struct PlainRun {
    /// Length in bytes.
    pub len: usize,
    /// True if one of the bytes is 0x80 or above.
    pub high: bool,
}

/// Returns the run of bytes before the first quote, backslash or control character.
#[inline(always)]
pub(super) fn plain_run(bytes: &[u8]) -> PlainRun {
    let (mut len, mut high) = (0, false);
    while let Some(block) = bytes[len..].first_chunk() {
        let marks = BlockMarks::of(block);
        if marks.special != 0 {
            let before = marks.special.trailing_zeros();
            let before_it = (1 << before) - 1;
            return PlainRun {
                len: len + before as usize,
                high: high || marks.high & before_it != 0,
            };
        }
        high |= marks.high != 0;
        len += BLOCK_LEN;
    }
    let rest = &bytes[len..];
    let is_special = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\');
    let tail = rest.iter().position(is_special).unwrap_or(rest.len());
    PlainRun {
        len: len + tail,
        high: high || !rest[..tail].is_ascii(),
    }
}

/// Returns the string if it ends within two blocks and has no escape; `bytes` begin after its opening quote.
#[inline(always)]
pub(super) fn short_string(bytes: &[u8]) -> Option<PlainRun> {
    let first = BlockMarks::of(bytes.first_chunk()?);
    if first.special != 0 {
        return up_to_quote(bytes, 0, first.special, first.high);
    }
    let second = BlockMarks::of(bytes[BLOCK_LEN..].first_chunk()?);
    let high = first.high | second.high << BLOCK_LEN;
    up_to_quote(bytes, BLOCK_LEN, second.special, high)
}

/// Returns the run up to the first special byte if that is a quote. Bit 0 of `special` is the byte at `from`, bit 0 of
/// `high` the first byte.
#[inline(always)]
fn up_to_quote(bytes: &[u8], from: usize, special: u32, high: u32) -> Option<PlainRun> {
    let len = from + special.trailing_zeros() as usize;
    (special != 0 && bytes[len] == b'"').then(|| PlainRun {
        len,
        high: high & ((1 << len) - 1) != 0,
    })
}

/// The bytes of a string up to its end or its first fault.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TextRun {
    /// Length in bytes.
    pub len: usize,
    /// True if one of the bytes is 0x80 or above.
    pub high: bool,
    /// True if the bytes include an escape.
    pub escaped: bool,
}

/// Returns the bytes before the first quote, control character or escape that `rare` rejects. `rare` is called in order
/// with the offset of the backslash of each escape that is not a frequent one. Works on four blocks at a time and without
/// a branch per escape: in prose every second or third block has one, at a place that no branch predictor guesses.
#[inline(always)]
pub(super) fn text_run(bytes: &[u8], rare: impl FnMut(usize) -> bool) -> TextRun {
    dispatch!(Level::new(), simd => text_run_with(simd, bytes, rare))
}

#[inline(always)]
fn text_run_with<S: Simd>(simd: S, bytes: &[u8], mut rare: impl FnMut(usize) -> bool) -> TextRun {
    let (mut len, mut high, mut escaped) = (0, false, false);
    let mut escapes = Escapes::default();
    while let Some(quad) = bytes[len..].first_chunk() {
        let marks = QuadMarks::of(simd, quad);
        let escaped_bytes = escapes.next(marks.backslash);
        let mut ends = marks.ends & !escaped_bytes | escaped_bytes & !marks.frequent;
        while ends != 0 {
            let at = ends.trailing_zeros();
            // An escape begins at its backslash, which may be in the previous quad.
            let is_escape = escaped_bytes >> at & 1 == 1;
            let end = len + at as usize - usize::from(is_escape);
            if !(is_escape && rare(end)) {
                let before = (1 << at) - 1;
                return TextRun {
                    len: end,
                    high: high || marks.high & before != 0,
                    escaped: escaped || escaped_bytes & before != 0,
                };
            }
            ends &= ends - 1;
        }
        high |= marks.high != 0;
        escaped |= escaped_bytes != 0;
        len += QUAD_LEN;
    }
    len -= usize::from(escapes.open);
    loop {
        let run = plain_run(&bytes[len..]);
        len += run.len;
        high |= run.high;
        if bytes.get(len) != Some(&b'\\') || !is_frequent_escape(bytes, len) && !rare(len) {
            return TextRun { len, high, escaped };
        }
        escaped = true;
        len += 2;
    }
}

/// Returns whether the escape at `at` is a frequent one, which is always well-formed and native.
#[inline(always)]
fn is_frequent_escape(bytes: &[u8], at: usize) -> bool {
    matches!(
        bytes.get(at + 1),
        Some(b'n' | b'"' | b'\\' | b't' | b'r' | b'b' | b'f')
    )
}

/// Distinguishes backslashes that begin an escape from escaped ones, across quads.
#[derive(Default)]
struct Escapes {
    /// The previous quad ended with a backslash that begins an escape.
    open: bool,
}

impl Escapes {
    /// Returns the escaped bytes of a quad: those after a backslash that begins an escape. In a run of backslashes every
    /// second one is escaped, starting with the second. A subtraction at the start of each run carries through the run, so
    /// that all runs of a quad are resolved at once (Langdale and Lemire, Parsing Gigabytes of JSON per Second, 2019).
    #[inline(always)]
    fn next(&mut self, backslash: u64) -> u64 {
        const ODD_BITS: u64 = 0xAAAA_AAAA_AAAA_AAAA;
        let carried = u64::from(self.open);
        let may_begin = backslash & !carried;
        let followers = may_begin << 1;
        let code = (followers | ODD_BITS).wrapping_sub(may_begin) ^ ODD_BITS;
        self.open = (code & backslash) >> 63 == 1;
        code ^ (backslash | carried)
    }
}

/// The classes of the bytes of a block, one bit per byte, the first byte in the lowest bit.
struct BlockMarks {
    /// Quotes, backslashes and control characters.
    special: u32,
    /// Bytes of 0x80 or above.
    high: u32,
}

impl BlockMarks {
    #[inline(always)]
    fn of(block: &[u8; BLOCK_LEN]) -> Self {
        dispatch!(Level::baseline(), simd => Self::with(simd, block))
    }

    #[inline(always)]
    fn with<S: Simd>(simd: S, block: &[u8; BLOCK_LEN]) -> Self {
        let bytes = u8x16::simd_from(simd, *block);
        let (quote, backslash) = (bytes.simd_eq(b'"'), bytes.simd_eq(b'\\'));
        let control = bytes.min(0x1f).simd_eq(bytes);
        Self {
            special: (control | quote | backslash).to_bitmask() as u32,
            high: bytes.bitcast::<i8x16<_>>().simd_lt(0).to_bitmask() as u32,
        }
    }
}

const QUAD_LEN: usize = 4 * BLOCK_LEN;

/// The classes of the bytes of four blocks, one bit per byte.
struct QuadMarks {
    /// Quotes and control characters.
    ends: u64,
    /// Backslashes.
    backslash: u64,
    /// Bytes that form a frequent escape with a backslash before them.
    frequent: u64,
    /// Bytes of 0x80 or above.
    high: u64,
}

impl QuadMarks {
    #[inline(always)]
    fn of<S: Simd>(simd: S, quad: &[u8; QUAD_LEN]) -> Self {
        let bytes = u8x64::simd_from(simd, *quad);
        let is = |byte: u8| bytes.simd_eq(byte);
        let (quote, backslash) = (is(b'"'), is(b'\\'));
        let b_or_f = (bytes & !(b'b' ^ b'f')).simd_eq(b'b' & b'f');
        let frequent = is(b'n') | is(b't') | is(b'r') | b_or_f | quote | backslash;
        let control = bytes.min(0x1f).simd_eq(bytes);
        Self {
            ends: (quote | control).to_bitmask(),
            backslash: backslash.to_bitmask(),
            frequent: frequent.to_bitmask(),
            high: bytes.bitcast::<i8x64<_>>().simd_lt(0).to_bitmask(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_run_ends_at_the_first_special_byte_at_any_offset() {
        let others = [
            b'a', b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0x9f, 0xa2, 0xdc, 0xff,
        ];
        for len in 0..40 {
            for other in others {
                let plain = vec![other; len];
                assert_eq!(plain_run(&plain).len, len);
                assert_eq!(plain_run(&plain).high, len > 0 && other >= 0x80);
                for at in 0..len {
                    for special in [0, 1, b'\n', 0x1f, b'"', b'\\'] {
                        let mut bytes = plain.clone();
                        bytes[at] = special;
                        let run = plain_run(&bytes);
                        assert_eq!((run.len, run.high), (at, at > 0 && other >= 0x80));
                    }
                }
            }
        }
    }

    /// A byte-by-byte reference of `text_run`; of the rare escapes it accepts `\\u`.
    fn text_run_reference(bytes: &[u8]) -> TextRun {
        let (mut len, mut escaped) = (0, false);
        loop {
            match bytes[len..] {
                [
                    b'\\',
                    b'n' | b'"' | b'\\' | b't' | b'r' | b'b' | b'f' | b'u',
                    ..,
                ] => {
                    (len, escaped) = (len + 2, true);
                }
                [] | [0..0x20 | b'"' | b'\\', ..] => break,
                _ => len += 1,
            }
        }
        TextRun {
            len,
            high: !bytes[..len].is_ascii(),
            escaped,
        }
    }

    #[test]
    fn a_text_run_equals_a_byte_by_byte_reference() {
        const PIECES: [&[u8]; 12] = [
            b"a",
            b"\\n",
            b"\\\\",
            b"\\\"",
            b"\"",
            b"\\u",
            b"\\",
            b"\x1f",
            b"\xc3\xa9",
            b"plain words ",
            b"0123456789abcdef0123456789abcdef",
            b"\\/",
        ];
        for seed in 0..20_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut bytes = Vec::new();
            // Mostly pieces that do not end a run, so that runs are long.
            for _ in 0..rng.usize(..60) {
                let n = if rng.u8(..30) == 0 {
                    rng.usize(..12)
                } else {
                    [0, 1, 2, 3, 5, 8, 9, 10][rng.usize(..8)]
                };
                bytes.extend_from_slice(PIECES[n]);
            }
            let mut rare = Vec::new();
            let run = text_run(&bytes, |at| {
                rare.push(at);
                bytes.get(at + 1) == Some(&b'u')
            });
            let reference = text_run_reference(&bytes);
            assert_eq!(run, reference, "seed {seed}");
            rare.retain(|at| *at < run.len);
            let expected = (0..run.len).filter(|at| {
                let row = bytes[..*at].iter().rev().take_while(|byte| **byte == b'\\');
                bytes[*at..].starts_with(b"\\u") && row.count() % 2 == 0
            });
            assert_eq!(rare, expected.collect::<Vec<_>>(), "seed {seed}");
            let short = short_string(&bytes).map(|run| (run.len, run.high));
            let TextRun { len, high, escaped } = reference;
            let blocks_len = (len / BLOCK_LEN + 1) * BLOCK_LEN;
            let is_short =
                len < 2 * BLOCK_LEN && !escaped && bytes.len() >= blocks_len && bytes[len] == b'"';
            assert_eq!(short, is_short.then_some((len, high)), "seed {seed}");
        }
    }
}
