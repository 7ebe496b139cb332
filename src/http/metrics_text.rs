//! The text formats of `/metrics`: OpenMetrics, and the older Prometheus text for clients that ask for it.

use hyper::header::HeaderValue;

/// A text format of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0, for clients that accept it, such as Prometheus.
    OpenMetrics,
    /// The older Prometheus text format, for all other clients.
    Plain,
}

impl Format {
    /// Returns the format that the `Accept` headers ask for.
    pub(crate) fn wanted<'a>(mut accepts: impl Iterator<Item = &'a HeaderValue>) -> Self {
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

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Converts OpenMetrics text to the older format: a family of counters is named like its samples, and units and the end
/// marker are dropped.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_families_like_their_samples() {
        let open = "# HELP a Some.\n# TYPE a counter\na_total 1\n# HELP b_bytes Size.\n# TYPE b_bytes gauge\n\
                    # UNIT b_bytes bytes\nb_bytes 2\n# HELP c Which.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP a_total Some.\n# TYPE a_total counter\na_total 1\n# HELP b_bytes Size.\n\
                        # TYPE b_bytes gauge\nb_bytes 2\n# HELP c_info Which.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(plain(open), expected);
    }
}
