//! Threads: each one that is started has a name, and an error that names it where the kernel refuses one. `BackgroundTask` is
//! always joined, also on drop, because no other thread may write its file meanwhile. Signals are handled by the main
//! thread alone: all others are started with them blocked.

use std::fmt::{self, Debug};
use std::io;
use std::panic::resume_unwind;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// The kernel refused a thread: a limit of the user, the unit or the container is reached, or memory is short.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused the thread `{name}` ({source})")]
pub struct ThreadError {
    name: &'static str,
    source: io::Error,
}

/// What mends a [`ThreadError`].
pub const THREADS_FIX: &str = "raise the limit of threads and processes: `TasksMax=` in the systemd unit or its slice, \
                               `ulimit -u` of the user, or the pids limit of the container; then start distilld again";

impl From<ThreadError> for io::Error {
    fn from(error: ThreadError) -> Self {
        io::Error::new(error.source.kind(), error)
    }
}

/// Returns whether a thread was refused.
#[must_use]
pub fn is_out_of_threads(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(|inner| inner.is::<ThreadError>())
}

/// The signals that have handlers.
const HANDLED: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
];

/// Calls `work` while this thread, and each thread that `work` starts, does not receive the handled signals. One that
/// arrives meanwhile is delivered to this thread afterwards.
///
/// # Errors
/// The kernel refuses the signal mask.
pub(crate) fn with_signals_blocked<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let handled: SigSet = HANDLED.into_iter().collect();
    let before = handled.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let result = work();
    before.thread_set_mask()?;
    Ok(result)
}

/// Starts a thread.
///
/// # Errors
/// The kernel refuses it.
pub(crate) fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ThreadError> {
    let thread = with_signals_blocked(|| Builder::new().name(name.to_owned()).spawn(work))
        .unwrap_or_else(Err);
    thread.map_err(|source| ThreadError { name, source })
}

/// Starts a thread that ends within `scope`.
///
/// # Errors
/// As [`spawn`].
pub(crate) fn spawn_in<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, ThreadError> {
    let builder = Builder::new().name(name.to_owned());
    let thread = with_signals_blocked(|| builder.spawn_scoped(scope, work)).unwrap_or_else(Err);
    thread.map_err(|source| ThreadError { name, source })
}

/// A background thread with a result.
pub(crate) struct BackgroundTask<T>(Option<JoinHandle<T>>);

impl<T: Send + 'static> BackgroundTask<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub(crate) fn spawn(
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self, ThreadError> {
        Ok(Self(Some(spawn(name, work)?)))
    }

    /// Returns whether the work is done.
    pub(crate) fn is_done(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the result.
    pub(crate) fn finish(mut self) -> T {
        let thread = self.0.take().expect("joined once");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl<T> Drop for BackgroundTask<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // The result has no receiver any more; a start examines what is on the disk.
            let _ = thread.join();
        }
    }
}

impl<T> Debug for BackgroundTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackgroundTask").finish_non_exhaustive()
    }
}
