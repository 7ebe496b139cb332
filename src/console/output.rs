//! The output of a daemon to stderr and to the journal, which never blocks the daemon.
//!
//! A pipe, a socket, a terminal and the journal block their writer while they are not read, a file while its disk
//! hangs. A thread of its own writes, and every other thread only adds to a queue. Messages that exceed the queue are
//! dropped and counted; the count is logged when the reader has read the rest.
//!
//! Without [`detach`] each message is written by its caller, as commands do, which wait for the reader of their output.

use std::backtrace::Backtrace;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::console::progress;
use crate::platform::background::spawn;
use crate::platform::escape;

/// Maximum bytes of the messages that wait: some thousand, as a start with many faults logs them.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// The queue of this process, once its output is detached.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// A destination of messages; each call writes one message.
pub(crate) trait Sink: fmt::Debug + Send + Sync {
    /// Writes a message, and may block for any time.
    fn write(&self, message: &[u8]) -> io::Result<()>;
}

/// Stderr. The progress bar is removed meanwhile.
#[derive(Debug)]
struct Stderr;

impl Sink for Stderr {
    fn write(&self, message: &[u8]) -> io::Result<()> {
        progress::around(|| io::stderr().write_all(message))
    }
}

/// A writer to stderr for the log, which passes one line per call: formats escape what is foreign in it, and what they
/// leave is escaped here.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StderrLines {
    /// Of text, which may have colours.
    Text,
    /// Of JSON.
    Json,
}

impl Write for StderrLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = match self {
            Self::Text => escape::styled(&text),
            Self::Json => escape::json(&text),
        };
        print(text.as_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(Arc<dyn Sink>, Vec<u8>)>,
    /// The bytes of these messages and of the one that is being written.
    bytes: usize,
    /// The number of messages that were dropped since the last report of them.
    lost: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message, or drops and counts it. A message that is longer than the queue is accepted by an empty one.
    fn push(&self, sink: Arc<dyn Sink>, message: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes > 0 && waiting.bytes + message.len() > WAITING_BYTES_MAX {
            waiting.lost += 1;
            return;
        }
        waiting.bytes += message.len();
        waiting.messages.push_back((sink, message.to_vec()));
        drop(waiting);
        self.changed.notify_all();
    }

    /// Writes the messages in order. `report` gets the number of messages that were dropped, once all others are
    /// written: its own message finds room then, and its reader reads.
    fn write_all(&self, report: impl Fn(u64)) {
        let mut reported = 0;
        loop {
            let (sink, message) = self.next();
            let written = sink.write(&message);
            let mut waiting = self.lock();
            waiting.bytes -= message.len();
            let mut lost = 0;
            match written {
                Ok(()) if waiting.bytes == 0 => lost = std::mem::take(&mut waiting.lost),
                Ok(()) => {}
                // The report that was not written is repeated, so it is no loss itself.
                Err(_) => waiting.lost += reported.max(1),
            }
            drop(waiting);
            self.changed.notify_all();
            if lost > 0 {
                report(lost);
            }
            reported = lost;
        }
    }

    fn next(&self) -> (Arc<dyn Sink>, Vec<u8>) {
        let mut waiting = self.lock();
        loop {
            if let Some(message) = waiting.messages.pop_front() {
                return message;
            }
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything is written, at most for `patience`, and returns whether it is.
    fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut waiting = self.lock();
        while waiting.bytes > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            waiting = self
                .changed
                .wait_timeout(waiting, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

/// Moves all output of this process to a thread of its own, also the message of a panic.
///
/// # Errors
/// The thread cannot be started.
pub fn detach() -> io::Result<()> {
    let queue = Arc::new(Queue::default());
    let written = Arc::clone(&queue);
    // It ends with the process: it may be blocked in a write for any time.
    spawn("log", move || {
        written.write_all(|lines| {
            tracing::warn!(
                lines,
                "dropped {lines} log lines: the reader of stderr or of the journal did not read them in time"
            );
        });
    })?;
    if QUEUE.set(queue).is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            let trace = Backtrace::capture();
            print(format!("thread '{name}' {panic}\n{trace}\n").as_bytes());
        }));
    }
    Ok(())
}

/// Writes a page for a person to stdout.
///
/// # Errors
/// Stdout cannot be written.
pub fn show(page: &str) -> io::Result<()> {
    io::stdout().write_all(escape::styled(page).as_bytes())
}

/// Writes a value to stdout as a line of JSON.
///
/// # Errors
/// Stdout cannot be written.
pub fn show_json(value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)? + "\n";
    io::stdout().write_all(escape::json(&text).as_bytes())
}

/// A terminal to which lines of JSON are written: each is escaped once it is complete.
#[derive(Debug)]
pub struct JsonAtTerminal<W> {
    terminal: W,
    line: Vec<u8>,
}

impl<W> JsonAtTerminal<W> {
    /// Wraps a terminal.
    pub fn new(terminal: W) -> Self {
        Self {
            terminal,
            line: Vec::new(),
        }
    }
}

impl<W: Write> Write for JsonAtTerminal<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if let Some(end) = memchr::memrchr(b'\n', &self.line) {
            let rest = self.line.split_off(end + 1);
            let lines = std::mem::replace(&mut self.line, rest);
            let lines = String::from_utf8_lossy(&lines);
            self.terminal.write_all(escape::json(&lines).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.terminal.flush()
    }
}

/// Writes a line about the output to stderr.
pub fn note(line: &str) {
    print(format!("{}\n", escape::Printable(line)).as_bytes());
}

/// Writes lines to stderr. A failure is ignored: there is no other place to report it.
pub(crate) fn print(lines: &[u8]) {
    write(&(Arc::new(Stderr) as Arc<dyn Sink>), lines);
}

/// Writes a message, or adds it to the queue if output is detached. A failure is ignored, but counted in the latter
/// case.
pub(crate) fn write(sink: &Arc<dyn Sink>, message: &[u8]) {
    match QUEUE.get() {
        Some(queue) => queue.push(Arc::clone(sink), message),
        None => {
            let _ = sink.write(message);
        }
    }
}

/// Waits until all output is written, at most for `patience`. For the end of the process.
pub fn flush(patience: Duration) {
    if let Some(queue) = QUEUE.get() {
        // What is still in the queue then has no reader.
        let _ = queue.flush(patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    /// A sink whose writes end when the test receives them, each with the given result.
    #[derive(Debug)]
    struct Reader {
        sender: SyncSender<Vec<u8>>,
        results: Mutex<Receiver<bool>>,
    }

    impl Sink for Reader {
        fn write(&self, message: &[u8]) -> io::Result<()> {
            self.sender.send(message.to_vec()).unwrap();
            match self.results.lock().unwrap().recv() {
                Ok(true) => Ok(()),
                _ => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    struct Test {
        queue: Arc<Queue>,
        sink: Arc<dyn Sink>,
        written: Receiver<Vec<u8>>,
        results: SyncSender<bool>,
    }

    impl Test {
        fn new() -> Self {
            let (sender, written) = sync_channel(0);
            let (results, given) = sync_channel(1);
            let results_of_sink = Mutex::new(given);
            let sink: Arc<dyn Sink> = Arc::new(Reader {
                sender,
                results: results_of_sink,
            });
            let queue = Arc::new(Queue::default());
            let (writer, reported) = (Arc::clone(&queue), Arc::clone(&sink));
            std::thread::spawn(move || {
                let report = |lost| writer.push(Arc::clone(&reported), &report(lost));
                writer.write_all(report);
            });
            Self {
                queue,
                sink,
                written,
                results,
            }
        }

        fn push(&self, message: &[u8]) {
            self.queue.push(Arc::clone(&self.sink), message);
        }

        fn read(&self, is_success: bool) -> Vec<u8> {
            let message = self.written.recv().unwrap();
            self.results.send(is_success).unwrap();
            message
        }
    }

    fn report(lost: u64) -> Vec<u8> {
        format!("lost {lost}").into_bytes()
    }

    #[test]
    fn a_reader_that_does_not_read_blocks_no_push_and_gets_one_report() {
        let test = Test::new();
        let line = vec![b'x'; WAITING_BYTES_MAX / 8];
        for _ in 0..100 {
            test.push(&line);
        }
        assert!(!test.queue.flush(Duration::ZERO));
        for _ in 0..8 {
            assert_eq!(test.read(true), line);
        }
        assert_eq!(test.read(true), report(92));
        test.push(b"after");
        assert_eq!(test.read(true), b"after");
        assert!(test.queue.flush(Duration::from_secs(60)));
    }

    #[test]
    fn a_report_that_is_not_written_is_repeated_with_the_whole_count() {
        let test = Test::new();
        test.push(b"a");
        test.read(false);
        test.push(b"b");
        test.read(false);
        test.push(b"c");
        test.read(true);
        assert_eq!(test.read(false), report(2));
        test.push(b"d");
        test.read(true);
        assert_eq!(test.read(true), report(2));
        assert!(test.queue.flush(Duration::from_secs(60)));
        assert_eq!(test.queue.lock().lost, 0);
    }

    #[test]
    fn a_message_longer_than_the_queue_is_written() {
        let test = Test::new();
        let line = vec![b'x'; WAITING_BYTES_MAX + 1];
        test.push(&line);
        test.push(b"dropped");
        assert_eq!(test.read(true), line);
        assert_eq!(test.read(true), report(1));
    }
}
