//! Work on a sequence that several threads share: they map the items, and the calling thread takes the results in order.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::platform::background::spawn_in;

/// Maximum number of threads; more do not read faster.
const THREADS_MAX: usize = 8;
/// Items that are mapped or wait for their turn, in addition to one for each thread.
const WAITING_MAX: usize = 2;

/// An item, and where its result goes.
type Task<I, O> = (I, SyncSender<O>);

/// Returns the number of threads that read at the same time.
pub(crate) fn reader_threads() -> usize {
    thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS_MAX))
}

/// Takes items from `next`, maps them on several threads, and passes the results to `visit` in the order of the items.
/// `next` and `visit` run on this thread, and each of them may use `shared`. An item that `is_large` is mapped alone.
///
/// # Errors
/// The first error of `next` or `visit`; no further item is taken.
pub(crate) fn map_in_order<S, I: Send, O: Send, E>(
    shared: &mut S,
    mut next: impl FnMut(&mut S) -> Result<Option<I>, E>,
    is_large: impl Fn(&I) -> bool,
    map: impl Fn(I) -> O + Sync,
    mut visit: impl FnMut(&mut S, O) -> Result<(), E>,
) -> Result<(), E> {
    let threads = reader_threads();
    let (tasks, queue) = sync_channel::<Task<I, O>>(threads + WAITING_MAX);
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        // Dropped first, also on an early return, so that the threads end.
        let tasks = tasks;
        let started = (0..threads).filter(|_| {
            let (queue, map) = (&queue, &map);
            spawn_in(scope, "read", move || run_tasks(queue, map)).is_ok()
        });
        // A host may refuse some of the threads; each started one maps any item.
        let started = started.count();
        let mut waiting = VecDeque::<Receiver<O>>::new();
        let mut take_first = |shared: &mut S, waiting: &mut VecDeque<Receiver<O>>| {
            // A thread that panicked has no result, and ends this scope with a panic.
            let first = waiting.pop_front().and_then(|first| first.recv().ok());
            first.map_or(Ok(()), |result| visit(shared, result))
        };
        while let Some(item) = next(shared)? {
            let waiting_max = match is_large(&item) {
                true => 0,
                false => started + WAITING_MAX - 1,
            };
            while waiting.len() > waiting_max {
                take_first(shared, &mut waiting)?;
            }
            let (sender, result) = sync_channel(1);
            if started == 0 {
                // The channel has room for one.
                let _ = sender.send(map(item));
            } else if tasks.send((item, sender)).is_err() {
                break;
            }
            waiting.push_back(result);
            if waiting_max == 0 {
                take_first(shared, &mut waiting)?;
            }
        }
        while !waiting.is_empty() {
            take_first(shared, &mut waiting)?;
        }
        Ok(())
    })
}

fn run_tasks<I, O>(queue: &Mutex<Receiver<Task<I, O>>>, map: &(impl Fn(I) -> O + Sync)) {
    loop {
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((item, result)) = task else { return };
        // After an error no result is awaited.
        let _ = result.send(map(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_an_error_ends_the_work() {
        for (count, fail_at) in [(0, None), (1, None), (500, None), (500, Some(70))] {
            let mut taken = (0..count).peekable();
            let (mut seen, mut large) = (Vec::new(), Mutex::new(0));
            let done = map_in_order(
                &mut seen,
                |_| Ok(taken.next()),
                |item: &u32| item.is_multiple_of(7),
                |item: u32| {
                    // Each large item is mapped once.
                    let mut large = large.lock().unwrap();
                    *large += u32::from(item.is_multiple_of(7));
                    item * 2
                },
                |seen: &mut Vec<u32>, result| {
                    seen.push(result);
                    match fail_at == Some(result) {
                        true => Err("stopped"),
                        false => Ok(()),
                    }
                },
            );
            assert_eq!(done.is_err(), fail_at.is_some());
            let whole: Vec<u32> = (0..count).map(|item| item * 2).collect();
            assert_eq!(seen, whole[..seen.len()]);
            assert_eq!(
                seen.last().copied() == whole.last().copied(),
                fail_at.is_none()
            );
            assert!(*large.get_mut().unwrap() <= count.div_ceil(7));
            assert!(taken.peek().is_none() || fail_at.is_some());
        }
    }

    #[test]
    #[should_panic(expected = "scoped thread panicked")]
    fn a_panic_of_a_thread_is_not_lost() {
        let mut items = 0..20;
        let _ = map_in_order(
            &mut (),
            |()| Ok::<_, ()>(items.next()),
            |_| false,
            |item| assert_ne!(item, 9),
            |(), ()| Ok(()),
        );
    }
}
