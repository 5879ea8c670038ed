//! Independent requests side by side, bounded.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;

/// Requests under way at once: a registry's front end answers this many without queueing them.
const AT_ONCE: usize = 8;

/// Calls `ask` on every item; the answers have the order of the items. The first error in that order is returned, and
/// after an error no further item is begun.
pub fn side_by_side<T: Sync, R: Send>(items: &[T], ask: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::SeqCst);
            let Some(item) = items.get(index) else { return };
            let answer = ask(item);
            if answer.is_err() {
                next.store(items.len(), Ordering::SeqCst);
            }
            *slots[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        }
    };
    match items.len() {
        0 | 1 => work(),
        count => thread::scope(|scope| (0..count.min(AT_ONCE)).for_each(|_| drop(scope.spawn(work)))),
    }
    let answers =
        slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    answers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_the_order_of_the_items() {
        let items: Vec<usize> = (0..50).collect();
        assert_eq!(side_by_side(&items, |item| Ok(item * 2)).expect("answers")[49], 98);
        assert_eq!(side_by_side(&[0; 0], |item: &usize| Ok(*item)).expect("none"), [0; 0]);
    }

    #[test]
    fn an_error_ends_it() {
        let begun = AtomicUsize::new(0);
        let items: Vec<usize> = (0..1000).collect();
        let result = side_by_side(&items, |item| {
            begun.fetch_add(1, Ordering::SeqCst);
            if *item == 3 { anyhow::bail!("three") } else { Ok(()) }
        });
        assert_eq!(result.expect_err("an error").to_string(), "three");
        assert!(begun.load(Ordering::SeqCst) < 1000);
    }
}
