//! A background thread that is always joined, also on drop, because no other thread may write its file meanwhile.

use std::fmt::{self, Debug};
use std::io;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

/// A thread that is always waited for.
pub(crate) struct Beside<T>(Option<JoinHandle<T>>);

impl<T: Send + 'static> Beside<T> {
    /// Begins the work.
    ///
    /// # Errors
    /// No thread is to be had.
    pub(crate) fn begin(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let thread = thread::Builder::new().name(name.to_owned());
        Ok(Self(Some(thread.spawn(work)?)))
    }

    /// Returns whether the work is done.
    pub(crate) fn is_done(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the result.
    pub(crate) fn finish(mut self) -> T {
        let thread = self.0.take().expect("it is waited for once");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // The result has no receiver any more; a start examines what is on the disk.
            let _ = thread.join();
        }
    }
}

impl<T> Debug for Beside<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside").finish_non_exhaustive()
    }
}
