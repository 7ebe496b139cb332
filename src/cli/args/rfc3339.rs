//! The form of a time on the command line: RFC 3339, kept as given.

use crate::record::timestamp::{moment, stamp};

/// Returns `text` unchanged if it is an RFC 3339 time: `T` and `Z` in capitals, seconds given, a real date.
///
/// # Errors
/// A message with the expected form.
pub fn rfc3339(text: &str) -> Result<String, String> {
    if is_rfc3339(text.as_bytes()) {
        return Ok(text.to_owned());
    }
    Err(
        "not an RFC 3339 time, such as 2026-05-02T03:04:05.678Z or 2026-05-02T03:04:05+02:00"
            .to_owned(),
    )
}

fn is_rfc3339(text: &[u8]) -> bool {
    let Some((date_time, rest)) = text.split_at_checked("2026-05-02T03:04:05".len()) else {
        return false;
    };
    is_date_time(date_time) && is_offset(without_fraction(rest))
}

fn is_date_time(text: &[u8]) -> bool {
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| text[at] != byte) {
        return false;
    }
    let field = |from, to| number(&text[from..to]);
    let (Some(year), Some(month), Some(day)) = (field(0, 4), field(5, 7), field(8, 10)) else {
        return false;
    };
    let (Some(hour), Some(minute), Some(second)) = (field(11, 13), field(14, 16), field(17, 19))
    else {
        return false;
    };
    // 60 is a leap second.
    is_day(year, month, day) && hour < 24 && minute < 60 && second <= 60
}

/// Returns whether there is such a day. Years of the same remainder by 400 have the same days, and a stamp has one from 1970
/// on.
fn is_day(year: u32, month: u32, day: u32) -> bool {
    let midnight = format!(
        "{:04}-{month:02}-{day:02}T00:00:00.000Z",
        2_000 + year % 400
    );
    moment(&midnight).is_some_and(|wall_ms| stamp(wall_ms) == midnight)
}

/// Returns the text after the fraction of a second. A dot without digits stays, and is not a valid offset.
fn without_fraction(text: &[u8]) -> &[u8] {
    let Some(digits) = text.strip_prefix(b".") else {
        return text;
    };
    let count = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if count == 0 { text } else { &digits[count..] }
}

fn is_offset(text: &[u8]) -> bool {
    match text {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            number(&[*h1, *h2]).is_some_and(|hour| hour < 24)
                && number(&[*m1, *m2]).is_some_and(|minute| minute < 60)
        }
        _ => false,
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u32::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_time_in_the_one_form_is_returned_unchanged() {
        let check = |text: &str, valid: bool| {
            assert_eq!(rfc3339(text).ok(), valid.then(|| text.to_owned()), "{text}")
        };
        for text in [
            "2026-05-02T03:04:05Z",
            "2026-05-02T03:04:05.6Z",
            "2026-05-02T03:04:05.678901234+02:00",
            "2024-02-29T23:59:60-11:30",
        ] {
            check(text, true);
        }
        for text in [
            "",
            "now",
            "2026-05-02",
            "2026-05-02T03:04Z",
            "2026-05-02T03:04:05",
            "2026-05-02 03:04:05Z",
            "2026-05-02t03:04:05Z",
            "2026-05-02T03:04:05z",
            "2026-05-02T03:04:05.Z",
            "2026-05-02T03:04:05+0200",
            "2026-05-02T24:00:00Z",
            "2026-13-02T03:04:05Z",
            "2026-00-02T03:04:05Z",
            "2025-02-29T03:04:05Z",
            "2026-05-32T03:04:05Z",
            "2026-05-00T03:04:05Z",
            "2026-05-02T03:60:05Z",
            "2026-05-02T03:04:05+24:00",
            "2026-05-02T03:04:05Zé",
            "２026-05-02T03:04:05Z",
            "2026-05-02T03:04:05Z ",
        ] {
            check(text, false);
        }
    }
}
