//! The progress bar for long work over many bytes, on stderr, drawn only if enabled by [`init`].
//!
//! Nothing is drawn to a file or pipe; the log covers these. All other output to stderr goes through [`around`], so that
//! no line is written into a bar.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::{
    HumanDuration, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle,
};

/// True if bars are drawn in this process; set once the terminal is known.
static DRAWS: AtomicBool = AtomicBool::new(false);
/// The bar on the terminal, if there is one.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Enables or disables bars.
pub fn init(draws: bool) {
    DRAWS.store(draws, Ordering::Relaxed);
}

/// Returns whether a bar would be drawn, and thus whether computing the total is worthwhile.
#[must_use]
pub fn is_drawn() -> bool {
    DRAWS.load(Ordering::Relaxed)
}

/// Runs `write`, which writes to stderr, with the bar removed meanwhile.
pub fn around<T>(write: impl FnOnce() -> T) -> T {
    let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    match &*drawn {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A callback for the progress of long work: the name of the current step, its bytes done, its bytes in total.
pub type OnStep<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// A progress bar over bytes: day-files differ in size, so only bytes predict the remaining time. It has no colours, so
/// `NO_COLOR` has no effect on it.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts a bar at 0 of `total_bytes`. `label` names the work, such as `verifying`.
    #[must_use]
    pub fn new(total_bytes: u64, label: &'static str) -> Self {
        // This target draws nothing if stderr is not a terminal, and otherwise at most 20 times a second.
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
                .with_key("rest", write_remaining);
        // The bar is cleared even if the work ends early with an error.
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target)
            .with_style(style)
            .with_message(label)
            .with_finish(ProgressFinish::AndClear);
        Self { bar }
    }

    /// Sets the number of bytes done. A number above the total raises the total, because bytes were appended meanwhile.
    pub fn at(&self, done_bytes: u64) {
        if self.bar.length().is_some_and(|total| total < done_bytes) {
            self.bar.set_length(done_bytes);
        }
        self.bar.set_position(done_bytes);
    }

    /// Clears the bar after the work; results follow on stdout.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Writes the remaining time, or `?` before any progress.
fn write_remaining(state: &ProgressState, out: &mut dyn fmt::Write) {
    // An error of the bar is ignored.
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

/// Progress bars for work in successive steps, one bar per step.
#[derive(Debug, Default)]
pub struct Steps {
    shown: Option<(&'static str, Progress)>,
}

impl Steps {
    /// Sets the progress of the step `label` to `done_bytes` of `total_bytes`.
    pub fn at(&mut self, label: &'static str, done_bytes: u64, total_bytes: u64) {
        if self.shown.as_ref().is_none_or(|(shown, _)| *shown != label) {
            // The old bar is cleared before the new one is drawn.
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
    fn bytes_appended_meanwhile_raise_the_total() {
        let mut steps = Steps::default();
        steps.at("reading", 1, 10);
        steps.at("reading", 12, 10);
        let (_, bar) = steps.shown.as_ref().unwrap();
        assert_eq!((bar.bar.position(), bar.bar.length()), (12, Some(12)));
        steps.at("rechecking", 1, 4);
        let (label, bar) = steps.shown.as_ref().unwrap();
        assert_eq!((*label, bar.bar.length()), ("rechecking", Some(4)));
    }
}
