//! Events in the native protocol of the systemd journal, with their fields as the journal's own.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::kv::priority;
use crate::console::output::{self, Sink};
use crate::platform::escape::Printable;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal's socket. Each message names its path, because a restarted journal may have bound a new one.
#[derive(Debug)]
struct Journal(UnixDatagram);

impl Sink for Journal {
    fn write(&self, message: &[u8]) -> io::Result<()> {
        self.0.send_to(message, SOCKET).map(|_| ())
    }
}

/// A layer that writes each event to the journal.
#[derive(Debug)]
pub(super) struct JournalEvents(Arc<dyn Sink>);

impl JournalEvents {
    /// Returns the layer if the journal has its socket. Connecting does not wait for the journal.
    pub(super) fn new() -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(SOCKET)?;
        Ok(Self(Arc::new(Journal(UnixDatagram::unbound()?))))
    }
}

impl<S: Subscriber> Layer<S> for JournalEvents {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        output::write(&self.0, &message(event));
    }
}

fn message(event: &Event<'_>) -> Vec<u8> {
    let metadata = event.metadata();
    let mut fields = Fields(Vec::with_capacity(512));
    fields.put("PRIORITY", &priority(*metadata.level()).to_string());
    fields.put("SYSLOG_IDENTIFIER", "distilld");
    fields.put("TARGET", metadata.target());
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        fields.put("CODE_FILE", file);
        fields.put("CODE_LINE", &line.to_string());
    }
    event.record(&mut fields);
    fields.0
}

/// The fields of a message: name, line end, length, value, line end. A value may contain any byte.
struct Fields(Vec<u8>);

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.0.extend(name.to_ascii_uppercase().bytes());
        self.0.push(b'\n');
        self.0.extend((value.len() as u64).to_le_bytes());
        self.0.extend(value.bytes());
        self.0.push(b'\n');
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), &Printable(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "{value:?}");
        self.put(field.name(), &Printable(&text).to_string());
    }
}
