//! The flags of `wait`.

use std::time::Duration;

use clap::Args;

/// Flags of `wait`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct WaitArguments {
    /// Wait until everything that is in the lake now is exported or refused
    ///
    /// Required, because it names what is waited for.
    #[arg(long, required = true)]
    pub fresh: bool,

    /// Maximum time to wait, such as 30s, 10m or 2h
    ///
    /// A number without a unit is in seconds. Default: no limit.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,

    /// Print one JSON object
    ///
    /// Keys are only added in later versions. Default: text.
    #[arg(long)]
    pub json: bool,
}

/// Parses a whole number with a unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let number: Option<u64> = digits.parse().ok().filter(|_| unit_ms > 0);
    let ms = number.and_then(|number| number.checked_mul(unit_ms));
    ms.map(Duration::from_millis)
        .ok_or_else(|| "a whole number with the unit ms, s, m or h, such as 30s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5", 5_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("250ms", 250),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "1d",
            "1.5s",
            "-1s",
            "99999999999999999999h",
            "18446744073709551615h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
