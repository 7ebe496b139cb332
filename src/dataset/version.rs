//! The name of a version of a dataset: the export's identity, the lengths of export and ledger, and a digest of both.

use std::fmt;
use std::str::FromStr;

use crate::record::ledger::{ExportId, from_hex, to_hex};
use crate::record::timestamp::day_of_stamp;

/// A version: two prefixes of two files that only grow. Displayed as
/// `distilld:1:EXPORT:EXPORT_LEN:LEDGER_LEN:DIGEST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The export.
    pub export: ExportId,
    /// Bytes of the export.
    pub export_len: u64,
    /// Bytes of the ledger.
    pub ledger_len: u64,
    /// The first 8 bytes of SHA-256 of two lines: SHA-256 of the bytes of the export and SHA-256 of the bytes of the ledger,
    /// in hexadecimal digits. The lines are the output of `sha256sum`, so that a shell can compute it.
    pub digest: [u8; 8],
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version {
            export,
            export_len,
            ledger_len,
            digest,
        } = self;
        let digest = to_hex(digest);
        write!(
            formatter,
            "distilld:1:{export}:{export_len}:{ledger_len}:{digest}"
        )
    }
}

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version, such as distilld:1:4f1c09b2a77d5e03:18366952:6375:9f86d081884c7d65")]
pub struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Version, NoVersion> {
        let fields: Vec<&str> = text.split(':').collect();
        let &["distilld", "1", export, export_len, ledger_len, digest] = fields.as_slice() else {
            return Err(NoVersion);
        };
        Ok(Version {
            export: ExportId::parse(export).ok_or(NoVersion)?,
            export_len: export_len.parse().map_err(|_no_number| NoVersion)?,
            ledger_len: ledger_len.parse().map_err(|_no_number| NoVersion)?,
            digest: from_hex(digest).ok_or(NoVersion)?,
        })
    }
}

/// The place in the history of a dataset that a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// A version.
    Version(Version),
    /// What was known when the export had this length.
    Len(u64),
    /// What was known at this time, milliseconds since 1970.
    Time(u64),
}

impl FromStr for At {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<At, &'static str> {
        if let Ok(version) = text.parse() {
            return Ok(At::Version(version));
        }
        if let Ok(len) = text.parse() {
            return Ok(At::Len(len));
        }
        utc_ms(text).map(At::Time).ok_or(
            "not a version of `distilld cite`, a length in bytes, or a UTC time such as 2026-05-02T03:04:05Z",
        )
    }
}

/// Where `rows` begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// After the rows of a version.
    Version(Version),
    /// At the start of a row.
    Offset(u64),
}

impl FromStr for From {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<From, &'static str> {
        match (text.parse(), text.parse()) {
            (Ok(version), _) => Ok(From::Version(version)),
            (_, Ok(offset)) => Ok(From::Offset(offset)),
            _ => Err("not an offset in bytes and not a version of `distilld cite`"),
        }
    }
}

/// The form of a time, with a zero for each digit.
const FORM: &str = "0000-00-00T00:00:00";

/// Parses an RFC 3339 time in UTC with any number of decimals; returns milliseconds since 1970.
#[must_use]
pub fn utc_ms(text: &str) -> Option<u64> {
    let (date_time, fraction) = text.strip_suffix('Z')?.split_at_checked(FORM.len())?;
    let is_digit = |byte: u8| byte.is_ascii_digit();
    let mut bytes = FORM.bytes().zip(date_time.bytes());
    let has_form = bytes.all(|(form, byte)| match form {
        b'0' => is_digit(byte),
        separator => byte == separator,
    });
    let fraction = match fraction {
        "" => "0",
        fraction => fraction
            .strip_prefix('.')
            .filter(|digits| !digits.is_empty())?,
    };
    let day = u64::from(day_of_stamp(date_time)?);
    let two_digits = |at: usize| date_time.get(at..at + 2)?.parse::<u64>().ok();
    let (hour, minute, second) = (two_digits(11)?, two_digits(14)?, two_digits(17)?);
    let in_a_day = hour < 24 && minute < 60 && second < 60;
    if !has_form || !in_a_day || !fraction.bytes().all(is_digit) {
        return None;
    }
    let ms: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some((((day * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::timestamp::moment;

    #[test]
    fn a_version_reads_back_and_nothing_else_does() {
        let text = "distilld:1:4f1c09b2a77d5e03:18366952:6375:9f86d081884c7d65";
        let version: Version = text.parse().unwrap();
        assert_eq!(version.to_string(), text);
        assert_eq!(text.parse(), Ok(At::Version(version)));
        assert_eq!(text.parse(), Ok(From::Version(version)));
        for other in [
            "",
            "distilld:2:4f1c09b2a77d5e03:18366952:6375:9f86d081884c7d65",
            "distilld:1:4f1c09b2a77d5e03:18366952:6375",
            "distilld:1:4f1c09b2a77d5e03:18366952:6375:9f86d081884c7d65:",
            "distilld:1:4f1c09b2a77d5e03:-1:6375:9f86d081884c7d65",
            "distilld:1:4F1c09b2a77d5e03:1:6375:9f86d081884c7d65",
            "distilld:1:4f1c09b2a77d5e03:1:6375:9f86d081884c7d6",
        ] {
            assert_eq!(other.parse::<Version>(), Err(NoVersion), "{other}");
        }
    }

    #[test]
    fn a_place_is_a_length_or_a_time_in_utc() {
        assert_eq!("17".parse(), Ok(At::Len(17)));
        let ms = moment("2026-05-02T03:04:05.670Z").unwrap();
        assert_eq!("2026-05-02T03:04:05.67Z".parse(), Ok(At::Time(ms)));
        assert_eq!("2026-05-02T03:04:05Z".parse(), Ok(At::Time(ms - 670)));
        assert_eq!(utc_ms("2026-05-02T03:04:05.6709Z"), Some(ms));
        for other in [
            "2026-05-02",
            "2026-05-02T03:04:05+02:00",
            "now",
            "-1",
            "2026-05-02T03:04:05.Z",
            "2026-05-02T3:04:005Z",
        ] {
            assert!(other.parse::<At>().is_err(), "{other}");
        }
        assert_eq!("17".parse(), Ok(From::Offset(17)));
        assert!("2026-05-02T03:04:05Z".parse::<From>().is_err());
    }
}
