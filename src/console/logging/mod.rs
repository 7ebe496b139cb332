//! The log: the filter, the format, and the output to stderr, or, if stderr is the systemd journal, to the journal's
//! own fields.
//!
//! Nothing is written to stdout. In the `kv` and `json` formats one event is always one line, for any content of its
//! fields. The `kv` format is stable for programs that read a log, and so are the names of fields: the journal has them
//! in upper case (`DAY_FILE`), so that `journalctl DAY_FILE=...` finds them.

mod journal;
pub(crate) mod kv;

use crate::console::logging::journal::JournalEvents;
use crate::console::logging::kv::{HumanFields, KvEvents, KvFields};

use std::io::{self, IsTerminal as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self};
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Environment, LogFormat, Settings, parse_filter};
use crate::console::output::StderrLines;
use crate::console::terminal::{Terminal, stderr_is_journal};

/// The subscriber below the format layer.
type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Form = Box<dyn Layer<Filtered> + Send + Sync>;

/// A handle to the filter of the running log.
#[derive(Debug, Default)]
pub struct LogFilter(Option<reload::Handle<EnvFilter, Registry>>);

impl LogFilter {
    /// Replaces the filter. `text` has been parsed once already; an invalid one is ignored.
    pub fn set(&self, text: &str) {
        if let (Some(handle), Ok(filter)) = (&self.0, parse_filter(text)) {
            // It fails only if the log no longer exists.
            let _ = handle.reload(filter);
        }
    }
}

/// Starts the log of this process and returns its filter. A log that was started before stays.
#[must_use]
pub fn init(settings: &Settings, environment: &Environment) -> LogFilter {
    init_with(&settings.log, settings.log_format, environment)
}

/// Starts the log of this process with a filter that was parsed once already.
#[must_use]
pub fn init_with(filter: &str, format: LogFormat, environment: &Environment) -> LogFilter {
    let stderr = Stderr::detect(environment);
    let filter = parse_filter(filter).expect("the filter was parsed once");
    let (filter, handle) = reload::Layer::new(filter);
    let format = format_layer(stderr, stderr.resolve(format));
    let subscriber = tracing_subscriber::registry().with(filter).with(format);
    // The only error is that a log exists already.
    match tracing::subscriber::set_global_default(subscriber) {
        Ok(()) => LogFilter(Some(handle)),
        Err(_) => LogFilter(None),
    }
}

fn format_layer(stderr: Stderr, line_format: LineFormat) -> Form {
    // Without the journal's socket its stream still accepts lines.
    if line_format == LineFormat::Journal
        && let Ok(journal) = JournalEvents::new()
    {
        return journal.boxed();
    }
    let written = match line_format {
        LineFormat::Json => StderrLines::Json,
        _ => StderrLines::Text,
    };
    let lines = fmt::layer().with_writer(move || written);
    match line_format {
        LineFormat::Json => lines.json().flatten_event(true).boxed(),
        LineFormat::Human => lines
            .compact()
            .with_ansi(stderr.colours())
            .with_timer(TimeOfDay)
            .with_target(false)
            .fmt_fields(HumanFields)
            .boxed(),
        LineFormat::Kv | LineFormat::Journal => lines
            .with_ansi(false)
            .event_format(KvEvents {
                journal: stderr.journal,
            })
            .fmt_fields(KvFields)
            .boxed(),
    }
}

/// The format of events after `auto` is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineFormat {
    Journal,
    Kv,
    Json,
    Human,
}

/// The kind of stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stderr {
    terminal: bool,
    journal: bool,
    no_color: bool,
}

impl Stderr {
    fn detect(environment: &Environment) -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            journal: stderr_is_journal(environment),
            no_color: !Terminal::for_stderr(environment).colours,
        }
    }

    fn resolve(self, requested: LogFormat) -> LineFormat {
        match requested {
            LogFormat::Human => LineFormat::Human,
            LogFormat::Kv => LineFormat::Kv,
            LogFormat::Json => LineFormat::Json,
            LogFormat::Auto if self.terminal => LineFormat::Human,
            LogFormat::Auto if self.journal => LineFormat::Journal,
            LogFormat::Auto => LineFormat::Kv,
        }
    }

    fn colours(self) -> bool {
        self.terminal && !self.no_color
    }
}

/// A timer that writes `14:27:30Z`, which suffices on a terminal.
struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        // A clock before 1970 shows midnight.
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() % 86_400);
        write!(
            writer,
            "{:02}:{:02}:{:02}Z",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::logging::kv::Quoted;
    use std::sync::{Arc, Mutex};

    /// Returns what the `kv` format writes while `act` runs.
    fn kv(journal: bool, act: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .event_format(KvEvents { journal })
            .fmt_fields(KvFields)
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_value_is_quoted_when_it_could_be_misread() {
        let check = |value: &str, written: &str| assert_eq!(Quoted(value).to_string(), written);
        check("plain/path-1.jsonl:7", "plain/path-1.jsonl:7");
        check("grün", "grün");
        check("", r#""""#);
        check("two words", r#""two words""#);
        check("a=b", r#""a=b""#);
        check(r#"print "hi""#, r#""print \"hi\"""#);
        check(r"back\slash", r#""back\\slash""#);
        check("one\ntwo\r\tthree", r#""one\ntwo\r\tthree""#);
        check("\u{1b}[31mred", r#""\u{1b}[31mred""#);
        check("line\u{2028}separator", r#""line\u{2028}separator""#);
    }

    #[test]
    fn an_event_is_one_line_with_its_spans_fields() {
        let text = kv(true, || {
            let _span = tracing::info_span!("pass", number = 7, lake = "a b").entered();
            let error = io::Error::other("no\nroom");
            tracing::warn!(
                rows = 3,
                error = &error as &dyn std::error::Error,
                "batch kept back"
            );
        });
        assert_eq!(
            text,
            "<4>level=warn msg=\"batch kept back\" rows=3 error=\"no\\nroom\" number=7 lake=\"a b\" target=distilld::console::logging::tests\n"
        );
    }

    #[test]
    fn outside_the_journal_a_line_starts_with_its_time() {
        let text = kv(false, || tracing::info!(path = %"/a", "started"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(
            crate::cli::args::rfc3339(time.strip_prefix("time=").unwrap()).is_ok(),
            "{text}"
        );
        assert_eq!(
            rest,
            "level=info msg=started path=/a target=distilld::console::logging::tests\n"
        );
    }

    #[test]
    fn auto_is_human_on_a_terminal_fields_in_the_journal_and_kv_elsewhere() {
        let terminal = Stderr {
            terminal: true,
            ..Stderr::default()
        };
        let journal = Stderr {
            journal: true,
            ..Stderr::default()
        };
        assert_eq!(terminal.resolve(LogFormat::Auto), LineFormat::Human);
        assert_eq!(Stderr::default().resolve(LogFormat::Auto), LineFormat::Kv);
        assert_eq!(terminal.resolve(LogFormat::Json), LineFormat::Json);
        assert_eq!(journal.resolve(LogFormat::Auto), LineFormat::Journal);
        for (requested, line_format) in [
            (LogFormat::Kv, LineFormat::Kv),
            (LogFormat::Json, LineFormat::Json),
            (LogFormat::Human, LineFormat::Human),
        ] {
            assert_eq!(journal.resolve(requested), line_format);
        }
        assert!(terminal.colours());
        assert!(
            !Stderr {
                no_color: true,
                ..terminal
            }
            .colours()
        );
        assert!(!Stderr::default().colours());
    }

    #[test]
    fn a_journal_stream_of_another_file_is_not_ours() {
        let environment = |value: &str| Environment::from_iter([("JOURNAL_STREAM", value)]);
        assert!(!stderr_is_journal(&Environment::default()));
        assert!(!stderr_is_journal(&environment("1:1")));
        let own = rustix::fs::fstat(io::stderr()).unwrap();
        assert!(stderr_is_journal(&environment(&format!(
            "{}:{}",
            own.st_dev, own.st_ino
        ))));
    }
}
