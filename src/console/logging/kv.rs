//! The formats of log lines: `key=value` for `kv` and the journal, and the fields of the format for people.

use std::fmt::Write as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime as Rfc3339Time};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::platform::escape::{Printable, is_unsafe};

/// A format with one event per line: `time=.. level=.. msg=.. key=value .. target=..`.
pub(crate) struct KvEvents {
    /// In the journal the time is omitted, because the journal has it, and the priority comes first, in the form that
    /// the journal strips.
    pub(crate) journal: bool,
}

impl<S, N> FormatEvent<S, N> for KvEvents
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let level = *event.metadata().level();
        if self.journal {
            write!(writer, "<{}>", priority(level))?;
        } else {
            writer.write_str("time=")?;
            Rfc3339Time.format_time(&mut writer)?;
            writer.write_char(' ')?;
        }
        write!(writer, "level={}", level.as_str().to_ascii_lowercase())?;
        let mut fields = KvVisitor {
            writer: writer.by_ref(),
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(&fields.fields)?;
            }
        }
        writeln!(writer, " target={}", event.metadata().target())
    }
}

/// Returns the syslog priority of a level, so that `journalctl -p warning` works.
pub(crate) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// A format for the fields of spans, the one of [`KvEvents`].
pub(crate) struct KvFields;

impl<'writer> FormatFields<'writer> for KvFields {
    fn format_fields<R: RecordFields>(
        &self,
        writer: Writer<'writer>,
        fields: R,
    ) -> std::fmt::Result {
        let mut visitor = KvVisitor {
            writer,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

/// A visitor that writes ` key=value` for each field.
struct KvVisitor<'writer> {
    writer: Writer<'writer>,
    result: std::fmt::Result,
}

impl KvVisitor<'_> {
    fn write(&mut self, field: &Field, value: &str) {
        let name = match field.name() {
            "message" => "msg",
            // Only the journal has this field.
            "message_id" => return,
            name => name.strip_prefix("r#").unwrap_or(name),
        };
        self.result = self
            .result
            .and_then(|()| write!(self.writer, " {name}={}", Quoted(value)));
    }
}

impl Visit for KvVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        self.write(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.write(field, &format!("{value:?}"));
    }
}

/// A format for people: the message first, and no fields that only programs need.
pub(crate) struct HumanFields;

impl<'writer> FormatFields<'writer> for HumanFields {
    fn format_fields<R: RecordFields>(
        &self,
        writer: Writer<'writer>,
        fields: R,
    ) -> std::fmt::Result {
        let mut visitor = HumanVisitor(KvVisitor {
            writer,
            result: Ok(()),
        });
        fields.record(&mut visitor);
        visitor.0.result
    }
}

struct HumanVisitor<'writer>(KvVisitor<'writer>);

impl Visit for HumanVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let message = format!("{value:?}");
            self.0.result = write!(self.0.writer, "{}", Printable(&message));
        } else {
            self.0.record_debug(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.record_str(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }
}

/// A value, unquoted if it is one plain word, otherwise in double quotes with everything escaped that could end or fake
/// a line.
pub(crate) struct Quoted<'a>(pub(super) &'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = |c: char| !c.is_whitespace() && !is_unsafe(c) && !matches!(c, '"' | '=' | '\\');
        if !self.0.is_empty() && self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if is_unsafe(c) => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
