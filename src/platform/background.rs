//! A background thread that is always joined, also on drop, because no other thread may write its file meanwhile.

use std::fmt::{self, Debug};
use std::io;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

/// A background thread with a result.
pub(crate) struct BackgroundTask<T>(Option<JoinHandle<T>>);

impl<T: Send + 'static> BackgroundTask<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub(crate) fn spawn(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let thread = thread::Builder::new().name(name.to_owned());
        Ok(Self(Some(thread.spawn(work)?)))
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
