//! The failed calls to the state's file. redb refuses all calls after a failed one, on every thread, without the reason:
//! the refusal is reported here as the failure that caused it, so that damage is never taken for a failed disk.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::state::error::{CallError, StateError};

/// What is known of an open state's file: the failure, if a call to it failed, and whether it is still needed.
#[derive(Debug, Default)]
pub(super) struct Failures {
    failure: Mutex<Option<StateError>>,
    is_retired: AtomicBool,
}

impl Failures {
    fn failure(&self) -> MutexGuard<'_, Option<StateError>> {
        // It is replaced in one step, so a panic of another thread leaves it whole.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the file has no name any more or is about to lose it: the store need not write to it when it is closed.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    /// Returns the failure, if a call failed.
    pub(super) fn first(&self) -> Option<StateError> {
        self.failure().as_ref().map(StateError::again)
    }

    /// Records a failed sync.
    pub(super) fn record_sync(&self, error: &io::Error) {
        *self.failure() = Some(StateError::Sync(error.to_string()));
    }

    /// Records a failed read or write. Damage takes precedence over an error of the disk. A later error of the disk replaces
    /// an earlier one, because redb continues after some failed writes, and after no other failure.
    pub(super) fn record(&self, error: &io::Error) {
        let mut failure = self.failure();
        if matches!(*failure, None | Some(StateError::Io(_))) {
            *failure = Some(error.into());
        }
    }

    /// Returns the error of a failed sync, if one failed.
    pub(super) fn sync_failure(&self) -> Option<StateError> {
        let failure = self.failure();
        let sync = failure
            .as_ref()
            .filter(|failure| matches!(failure, StateError::Sync(_)));
        sync.map(StateError::again)
    }

    /// Returns the result of a transaction. A sync that failed is its error also where the store has not noticed.
    pub(super) fn outcome_of(&self, written: Result<(), CallError>) -> Result<(), StateError> {
        if let Some(error) = self.sync_failure() {
            return Err(error);
        }
        written.map_err(|error| self.cause(error))
    }

    /// Returns the cause of an error: of a refusal the failure that caused it, of any other error the error itself. Damage is
    /// recorded, so that the owner of the state finds it in [`Self::first`] if another thread met it.
    pub(super) fn cause(&self, error: CallError) -> StateError {
        let cause = self.cause_of(error);
        let mut failure = self.failure();
        if matches!(*failure, None | Some(StateError::Io(_)))
            && matches!(cause, StateError::Damaged(_))
        {
            *failure = Some(cause.again());
        }
        cause
    }

    fn cause_of(&self, error: CallError) -> StateError {
        if let Some(sync) = self.sync_failure() {
            return sync;
        }
        match error {
            CallError::State(error) => error,
            CallError::Redb(redb::Error::Io(error)) => (&error).into(),
            CallError::Redb(redb::Error::PreviousIo) => self.failure().as_ref().map_or_else(
                || StateError::damaged("the store refuses a call and none failed"),
                StateError::again,
            ),
            CallError::Redb(error) => StateError::damaged(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(failures: &Failures) -> StateError {
        failures.cause(CallError::Redb(redb::Error::PreviousIo))
    }

    #[test]
    fn a_refusal_is_reported_as_the_failure_that_caused_it() {
        let [full, broken] = [28, 5].map(io::Error::from_raw_os_error);
        let changed = io::Error::new(io::ErrorKind::InvalidData, "block 7");
        let failures = Failures::default();
        failures.record(&full);
        assert!(
            matches!(refusal(&failures), StateError::Io(error) if error.raw_os_error() == Some(28))
        );
        failures.record(&broken);
        assert!(
            matches!(refusal(&failures), StateError::Io(error) if error.raw_os_error() == Some(5))
        );
        failures.record(&changed);
        failures.record(&full);
        assert!(matches!(refusal(&failures), StateError::Damaged(what) if what == "block 7"));
        // The disk failed this call, and no other.
        let own = failures.cause(CallError::Redb(redb::Error::Io(full)));
        assert!(matches!(own, StateError::Io(_)), "{own}");
        failures.record_sync(&broken);
        failures.record(&changed);
        assert!(matches!(refusal(&failures), StateError::Sync(_)));
    }
}
