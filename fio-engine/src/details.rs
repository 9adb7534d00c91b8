//! The last errors of a thread's I/O units, in words: fio asks for them when it reports a unit that has failed.

use crate::fio::Unit;
use std::cell::RefCell;

/// Most errors kept; fio asks at once, so that only what was returned together has to be here.
const KEPT_MAX: usize = 4096;

thread_local! {
    static DETAILS: RefCell<Vec<(u64, String)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the error of a unit.
pub fn keep(unit: Unit, text: String) {
    DETAILS.with_borrow_mut(|details| {
        let token = unit.token();
        details.retain(|(other, _)| *other != token);
        if details.len() >= KEPT_MAX {
            details.clear();
        }
        details.push((token, text));
    });
}

/// What is known about a unit's error.
pub fn find(unit: Unit) -> String {
    let token = unit.token();
    let found = DETAILS.with_borrow(|details| {
        details.iter().rev().find(|(other, _)| *other == token).map(|(_, text)| text.clone())
    });
    found.unwrap_or_else(|| "no more is known about this error".to_owned())
}
