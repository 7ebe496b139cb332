//! Owns the bar shown during long work over many bytes, on stderr, and only where somebody said that it may be drawn.
//!
//! It never decides anything and never writes to a file or pipe; elsewhere the log's one line a pass must do. What
//! else is written to stderr goes through [`around`] or [`Stderr`], so that no line lands in the middle of a bar.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::{
    HumanDuration, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle,
};

/// Whether bars are drawn in this process. Not before `main` has looked at the terminal.
static DRAWS: AtomicBool = AtomicBool::new(false);
/// The bar that is drawn now, if one is.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Has bars drawn from now on, or not.
pub fn init(draws: bool) {
    DRAWS.store(draws, Ordering::Relaxed);
}

/// Whether a bar would be drawn: whether it is worth finding out how much there is to do.
#[must_use]
pub fn is_drawn() -> bool {
    DRAWS.load(Ordering::Relaxed)
}

/// Writes to stderr what is no bar: a bar that stands there is taken away, and drawn again below.
pub fn around<T>(write: impl FnOnce() -> T) -> T {
    let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    match &*drawn {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Stderr, where a bar may stand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        around(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A callback for the progress of long work: the name of the current step, its bytes done, its bytes in total.
pub type OnStep<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// A bar over bytes: day-files differ in size, so that only bytes tell how long the rest takes. Without colours, so
/// `NO_COLOR` has nothing to change.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts at 0 of `total_bytes`. `label` says what is done, as in `verifying`.
    #[must_use]
    pub fn new(total_bytes: u64, label: &'static str) -> Self {
        // Where stderr is no terminal this target draws nothing either; where it is, at most 20 times a second.
        let target = match is_drawn() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let progress = Self::on(target, total_bytes, label);
        if is_drawn() {
            *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.bar.clone());
            progress.bar.tick();
        }
        progress
    }

    fn on(target: ProgressDrawTarget, total_bytes: u64, label: &'static str) -> Self {
        let style =
            ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}, {rest} left")
                .expect("the template is fixed and valid, by test")
                .with_key("rest", tell_rest);
        // Work that ends early, by an error, leaves no half bar behind.
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target)
            .with_style(style)
            .with_message(label)
            .with_finish(ProgressFinish::AndClear);
        Self { bar }
    }

    /// So much is done by now. More than there was at the start is more in all: somebody appended.
    pub fn at(&self, done_bytes: u64) {
        if self.bar.length().is_some_and(|total| total < done_bytes) {
            self.bar.set_length(done_bytes);
        }
        self.bar.set_position(done_bytes);
    }

    /// All is done: the bar goes away, results follow on stdout.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// The remaining time; before anything is done nobody knows it.
fn tell_rest(state: &ProgressState, out: &mut dyn fmt::Write) {
    // A bar that cannot be written is no reason to stop.
    let _ = match state.pos() {
        0 => out.write_str("?"),
        _ => write!(out, "{:#}", HumanDuration(state.eta())),
    };
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
        *drawn = None;
    }
}

/// Bars for work in several steps, one after the other: each step has a bar of its own.
#[derive(Debug, Default)]
pub struct Steps {
    shown: Option<(&'static str, Progress)>,
}

impl Steps {
    /// Of the step `label`, `done_bytes` of `total_bytes` are done.
    pub fn at(&mut self, label: &'static str, done_bytes: u64, total_bytes: u64) {
        if self.shown.as_ref().is_none_or(|(shown, _)| *shown != label) {
            // The old bar goes before the new one is drawn.
            self.shown = None;
            self.shown = Some((label, Progress::new(total_bytes, label)));
        }
        if let Some((_, bar)) = &self.shown {
            bar.at(done_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_counts_and_is_hidden_unless_it_may_be_drawn() {
        let progress = Progress::new(3, "verifying");
        progress.at(2);
        assert_eq!(
            (progress.bar.position(), progress.bar.length()),
            (2, Some(3))
        );
        assert!(progress.bar.is_hidden());
        progress.finish();
    }

    #[test]
    fn what_was_appended_meanwhile_makes_the_whole_larger() {
        let mut steps = Steps::default();
        steps.at("reading", 1, 10);
        steps.at("reading", 12, 10);
        let (_, bar) = steps.shown.as_ref().unwrap();
        assert_eq!((bar.bar.position(), bar.bar.length()), (12, Some(12)));
        steps.at("looking closer", 1, 4);
        let (label, bar) = steps.shown.as_ref().unwrap();
        assert_eq!((*label, bar.bar.length()), ("looking closer", Some(4)));
    }
}
