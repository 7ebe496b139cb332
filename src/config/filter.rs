//! The filters of log events. Pure.

use tracing_subscriber::EnvFilter;

/// An error in a directive of a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDirective {
    /// The directive is not `LEVEL`, `TARGET`, `TARGET=LEVEL` or `TARGET[SPAN{FIELD}]=LEVEL`.
    #[error("bad directive {directive:?}: expected LEVEL or TARGET=LEVEL")]
    Malformed {
        /// As written.
        directive: String,
    },
    /// A single word is a target, but this one is a misspelt level; as a target it would silence everything.
    #[error("bad directive {directive:?}: no such level; did you mean {nearest:?}?")]
    MisspeltLevel {
        /// As written.
        directive: String,
        /// The level it looks like.
        nearest: &'static str,
    },
    /// The filter is empty, which would silence everything.
    #[error("no directive; use \"off\" to log nothing")]
    Empty,
}

/// Parses a filter of log events.
///
/// # Errors
/// The first directive that cannot be used.
pub fn parse_filter(text: &str) -> Result<EnvFilter, BadDirective> {
    let directives = text.split(',').map(str::trim);
    let directives: Vec<&str> = directives
        .filter(|directive| !directive.is_empty())
        .collect();
    if directives.is_empty() {
        return Err(BadDirective::Empty);
    }
    for directive in &directives {
        check_directive(directive)?;
    }
    // The directives are joined again, because `EnvFilter` takes a space after a comma for part of a name.
    let filter = EnvFilter::builder().parse(directives.join(","));
    filter.map_err(|_| BadDirective::Malformed {
        directive: text.to_owned(),
    })
}

/// Returns whether a directive matches the value of a field, which is not supported. Parsed as a pattern, 130 bytes of
/// it can take minutes and gigabytes; parsed as text, the same directive twice trips an assertion of
/// `tracing-subscriber` 0.3.23.
fn has_value(directive: &str) -> bool {
    let fields = directive.split_once('{').map(|(_, rest)| rest);
    let fields = fields.map(|rest| rest.rsplit_once('}').map_or(rest, |(fields, _)| fields));
    fields.is_some_and(|fields| fields.contains('='))
}

fn check_directive(directive: &str) -> Result<(), BadDirective> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // `EnvFilter` splits at every comma, so a directive never contains one.
    if has_value(directive) || EnvFilter::builder().parse(directive).is_err() {
        return Err(BadDirective::Malformed {
            directive: directive.to_owned(),
        });
    }
    let word = directive.to_ascii_lowercase();
    if LEVELS.contains(&word.as_str()) {
        return Ok(());
    }
    match LEVELS
        .into_iter()
        .find(|level| strsim::osa_distance(level, &word) == 1)
    {
        Some(nearest) => Err(BadDirective::MisspeltLevel {
            directive: directive.to_owned(),
            nearest,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_names_its_directive() {
        let check = |text: &str, named: &str| {
            let error = parse_filter(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        };
        check("info,distilld=verbose", "\"distilld=verbose\"");
        check("a=b=c", "\"a=b=c\"");
        check("debgu", "did you mean \"debug\"");
        check("inof,distilld=trace", "did you mean \"info\"");
        check("distilld[pass{rows=1}]=debug", "{rows=1}");
        check("Q[{.0=}],Q[{.0=}]", "\"Q[{.0=}]\"");
        check("", "use \"off\"");
        check(" , ", "use \"off\"");
    }

    #[test]
    fn usual_filters_are_accepted() {
        for text in [
            "info",
            "OFF",
            "warn,distilld::lake::source=debug",
            "distilld",
            "info, distilld[pass]=trace",
            "distilld[pass{rows}]=debug",
            "2",
        ] {
            assert!(parse_filter(text).is_ok(), "{text}");
        }
    }
}
