//! The text formats of `/metrics`: OpenMetrics, and the older Prometheus text for clients that ask for it.

use hyper::header::HeaderValue;

/// In which of two formats the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0, for those that ask for it, as Prometheus does.
    OpenMetrics,
    /// The older text format, for all others.
    Plain,
}

impl Format {
    pub(super) fn wanted<'a>(mut accepts: impl Iterator<Item = &'a HeaderValue>) -> Self {
        let open = |value: &HeaderValue| {
            let value = value.to_str().unwrap_or_default();
            value.contains("application/openmetrics-text")
        };
        if accepts.any(open) {
            Self::OpenMetrics
        } else {
            Self::Plain
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The older format of the same text: a counter's family has the name of its samples, and what it does not know is left out.
pub(crate) fn plain(open: &str) -> String {
    let mut plain = String::with_capacity(open.len());
    let lines: Vec<&str> = open.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        if line.starts_with("# UNIT ") || *line == "# EOF" {
            continue;
        }
        let described = line.strip_prefix("# HELP ").map(|rest| ("HELP", rest));
        let typed = line.strip_prefix("# TYPE ").map(|rest| ("TYPE", rest));
        let Some((what, (name, rest))) = described
            .or(typed)
            .and_then(|(what, rest)| Some((what, rest.split_once(' ')?)))
        else {
            plain.push_str(line);
            plain.push('\n');
            continue;
        };
        // The type follows its help, with at most the unit after both.
        let kind = lines[n..].iter().take(2).find_map(|line| {
            let rest = line.strip_prefix("# TYPE ")?;
            rest.strip_prefix(name)?.strip_prefix(' ')
        });
        let (ending, rest) = match (kind, what) {
            (Some("counter"), _) => ("_total", rest),
            (Some("info"), "TYPE") => ("_info", "gauge"),
            (Some("info"), _) => ("_info", rest),
            _ => ("", rest),
        };
        plain.push_str(&format!("# {what} {name}{ending} {rest}\n"));
    }
    plain
}
