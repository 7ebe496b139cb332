//! Owns the bar shown during long work over many day-files, on stderr, and only where that is a terminal.
//!
//! It never decides anything and never writes to a file or pipe; elsewhere the log's one line a pass must do.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// A bar over a number of day-files. Without colours, so `NO_COLOR` has nothing to change.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts at 0 of `total_files`. `label` says what is done, as in `verifying`.
    pub fn new(total_files: u64, label: &'static str) -> Self {
        // This target draws nothing where stderr is no terminal, and at most 20 times a second where it is.
        Self::on(ProgressDrawTarget::stderr(), total_files, label)
    }

    /// Counts and draws nothing, for callers that were asked to be quiet.
    pub fn silent() -> Self {
        Self::on(ProgressDrawTarget::hidden(), 0, "")
    }

    fn on(target: ProgressDrawTarget, total_files: u64, label: &'static str) -> Self {
        let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} files, {eta} left")
            .expect("the template is fixed and valid, by test");
        // Work that ends early, by an error, leaves no half bar behind.
        let bar = ProgressBar::with_draw_target(Some(total_files), target)
            .with_style(style)
            .with_message(label)
            .with_finish(ProgressFinish::AndClear);
        Self { bar }
    }

    /// One more file is done.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// All is done: the bar goes away, results follow on stdout.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_counts_and_is_hidden_without_a_terminal() {
        let progress = Progress::on(ProgressDrawTarget::hidden(), 3, "verifying");
        progress.advance();
        progress.advance();
        assert_eq!(
            (progress.bar.position(), progress.bar.length()),
            (2, Some(3))
        );
        assert!(progress.bar.is_hidden());
        progress.finish();
        Progress::silent().finish();
    }
}
