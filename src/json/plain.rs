//! Owns the inner loop of all reading: how many bytes of a string stand for themselves, sixteen at a time.

use wide::u8x16;

const BLOCK_LEN: usize = 16;

/// Bytes of a string that stand for themselves.
pub(crate) struct PlainRun {
    /// How many.
    pub len: usize,
    /// Whether one of them is 0x80 or above.
    pub high: bool,
}

/// The bytes before the first quote, backslash or control character.
#[inline(always)]
pub(crate) fn plain_run(bytes: &[u8]) -> PlainRun {
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

/// A string that ends within a block and has no escape; `bytes` begin behind its opening quote.
#[inline(always)]
pub(super) fn short_string(bytes: &[u8]) -> Option<PlainRun> {
    let marks = BlockMarks::of(bytes.first_chunk()?);
    let len = marks.special.trailing_zeros() as usize;
    (bytes.get(len) == Some(&b'"') && len < BLOCK_LEN).then(|| PlainRun {
        len,
        high: marks.high & ((1 << len) - 1) != 0,
    })
}

/// Bytes of a string up to its end, or up to what needs a second look.
pub(super) struct TextRun {
    /// How many.
    pub len: usize,
    /// Whether one of them is 0x80 or above.
    pub high: bool,
    /// Whether there is an escape among them.
    pub escaped: bool,
}

/// The bytes before a quote, a control character or a backslash that begins one of the rarer escapes. Four blocks at a
/// time, because in prose an escape stands in every second or third block.
pub(super) fn text_run(bytes: &[u8]) -> TextRun {
    let (mut len, mut high, mut escaped) = (0, false, false);
    'quads: while let Some(quad) = bytes[len..].first_chunk() {
        let marks = QuadMarks::of(quad);
        let mut special = marks.special;
        while special != 0 {
            let at = special.trailing_zeros() as usize;
            if !is_frequent_escape(&bytes[len + at..]) {
                return TextRun {
                    len: len + at,
                    high: high || marks.high & ((1 << at) - 1) != 0,
                    escaped,
                };
            }
            escaped = true;
            if at == QUAD_LEN - 1 {
                // What it escapes is the first byte behind.
                high |= marks.high != 0;
                len += QUAD_LEN + 1;
                continue 'quads;
            }
            special &= !(0b11 << at);
        }
        high |= marks.high != 0;
        len += QUAD_LEN;
    }
    loop {
        let run = plain_run(&bytes[len..]);
        len += run.len;
        high |= run.high;
        if !is_frequent_escape(&bytes[len..]) {
            return TextRun { len, high, escaped };
        }
        escaped = true;
        len += 2;
    }
}

/// These need no second look.
#[inline(always)]
fn is_frequent_escape(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [b'\\', b'n' | b'"' | b'\\' | b't' | b'r' | b'b' | b'f', ..]
    )
}

/// What stands where in a block, one bit a byte, the first byte's lowest.
struct BlockMarks {
    /// Quotes, backslashes and control characters.
    special: u32,
    /// Bytes of 0x80 or above.
    high: u32,
}

impl BlockMarks {
    #[inline(always)]
    fn of(block: &[u8; BLOCK_LEN]) -> Self {
        let bytes = u8x16::from(*block);
        let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
        let quote = bytes.simd_eq(u8x16::splat(b'"'));
        let backslash = bytes.simd_eq(u8x16::splat(b'\\'));
        Self {
            special: (control | quote | backslash).to_bitmask(),
            high: bytes.to_bitmask(),
        }
    }
}

const QUAD_LEN: usize = 4 * BLOCK_LEN;

/// As [`BlockMarks`], of four blocks.
struct QuadMarks {
    special: u64,
    high: u64,
}

impl QuadMarks {
    #[inline(always)]
    fn of(quad: &[u8; QUAD_LEN]) -> Self {
        let (blocks, _) = quad.as_chunks();
        let mut marks = Self {
            special: 0,
            high: 0,
        };
        for (n, block) in blocks.iter().enumerate() {
            let of_block = BlockMarks::of(block);
            marks.special |= u64::from(of_block.special) << (n * BLOCK_LEN);
            marks.high |= u64::from(of_block.high) << (n * BLOCK_LEN);
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_run_ends_at_the_first_special_byte_wherever_it_stands() {
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

    /// The same, byte by byte.
    fn text_run_slowly(bytes: &[u8]) -> (usize, bool, bool) {
        let (mut len, mut escaped) = (0, false);
        loop {
            match bytes[len..] {
                [b'\\', b'n' | b'"' | b'\\' | b't' | b'r' | b'b' | b'f', ..] => {
                    (len, escaped) = (len + 2, true);
                }
                [] | [0..0x20 | b'"' | b'\\', ..] => break,
                _ => len += 1,
            }
        }
        (len, !bytes[..len].is_ascii(), escaped)
    }

    #[test]
    fn a_text_run_is_what_a_reading_byte_by_byte_says() {
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
            // Mostly pieces that end nothing, so that runs are long.
            for _ in 0..rng.usize(..60) {
                let n = if rng.u8(..30) == 0 {
                    rng.usize(..12)
                } else {
                    [0, 1, 2, 3, 8, 9, 10][rng.usize(..7)]
                };
                bytes.extend_from_slice(PIECES[n]);
            }
            let run = text_run(&bytes);
            assert_eq!(
                (run.len, run.high, run.escaped),
                text_run_slowly(&bytes),
                "seed {seed}"
            );
            let short = short_string(&bytes).map(|run| (run.len, run.high));
            let (len, high, escaped) = text_run_slowly(&bytes);
            let is_short =
                len < BLOCK_LEN && !escaped && bytes.len() >= BLOCK_LEN && bytes[len] == b'"';
            assert_eq!(short, is_short.then_some((len, high)), "seed {seed}");
        }
    }
}
