//! How much of its peers' memory a process maps: a [`Budget`] for all links together, and an [`Account`] for each of them,
//! which has to reserve before it maps. What is mapped counts until it is unmapped, whoever keeps it that long; what a link
//! has reserved is free again when its last memory is unmapped.

use std::sync::{Arc, Mutex, PoisonError};

/// Mappings, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub regions: u32,
    pub bytes: u64,
}

impl Amount {
    pub(crate) const MAX: Amount = Amount { regions: u32::MAX, bytes: u64::MAX };

    pub(crate) fn new(regions: u32, bytes: u64) -> Amount {
        Amount { regions, bytes }
    }

    pub(crate) fn plus(self, other: Amount) -> Amount {
        Amount::new(self.regions.saturating_add(other.regions), self.bytes.saturating_add(other.bytes))
    }

    pub(crate) fn minus(self, other: Amount) -> Amount {
        Amount::new(self.regions.saturating_sub(other.regions), self.bytes.saturating_sub(other.bytes))
    }

    /// The lesser of each.
    pub(crate) fn min(self, other: Amount) -> Amount {
        Amount::new(self.regions.min(other.regions), self.bytes.min(other.bytes))
    }

    pub(crate) fn holds(self, other: Amount) -> bool {
        other.regions <= self.regions && other.bytes <= self.bytes
    }

    fn half(self) -> Amount {
        Amount::new(self.regions / 2, self.bytes / 2)
    }
}

/// What all links of a server may map together.
#[derive(Debug)]
pub(crate) struct Budget {
    total: Amount,
    /// By all accounts together; never above the total.
    reserved: Mutex<Amount>,
}

impl Budget {
    pub(crate) fn new(total: Amount) -> Arc<Budget> {
        Arc::new(Budget { total, reserved: Mutex::default() })
    }

    /// Reserves so much more, or nothing; with `spare` only while half of all is free, so that those who have no use for
    /// theirs yet can't leave those who have one without any.
    fn reserve(&self, more: Amount, spare: bool) -> bool {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = if spare { self.total.half() } else { self.total };
        let fits = limit.minus(*reserved).holds(more);
        if fits {
            *reserved = reserved.plus(more);
        }
        fits
    }

    fn give_back(&self, amount: Amount) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = reserved.minus(amount);
    }
}

/// What one link has reserved, and has mapped.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    /// Changed when memory is handed over, and when it is unmapped.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reserved: Amount,
    /// Never above what is reserved.
    mapped: Amount,
}

impl Account {
    pub(crate) fn new(budget: Arc<Budget>) -> Account {
        Account { budget, state: Mutex::default() }
    }

    /// An account of nobody's, for memory that a process shares with itself.
    pub(crate) fn unlimited() -> Account {
        let account = Account::new(Budget::new(Amount::MAX));
        account.reserve(Amount::MAX, false);
        account
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises what is reserved to `wanted`, if there is so much; with `spare` nothing is taken that others may need more.
    pub(crate) fn reserve(&self, wanted: Amount, spare: bool) -> bool {
        let mut state = self.state();
        let more = wanted.minus(state.reserved);
        let given = self.budget.reserve(more, spare);
        if given {
            state.reserved = state.reserved.plus(more);
        }
        given
    }

    pub(crate) fn reserved(&self) -> Amount {
        self.state().reserved
    }

    /// A mapping of so many bytes is about to be made; false where it does not fit.
    pub(super) fn charge(&self, bytes: u64) -> bool {
        let mut state = self.state();
        let mapped = state.mapped.plus(Amount::new(1, bytes));
        let fits = state.reserved.holds(mapped);
        if fits {
            state.mapped = mapped;
        }
        fits
    }

    /// A mapping is no more.
    pub(super) fn release(&self, bytes: u64) {
        let mut state = self.state();
        state.mapped = state.mapped.minus(Amount::new(1, bytes));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.give_back(self.state().reserved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn nothing_is_mapped_beyond_what_is_reserved_nor_reserved_beyond_the_total() {
        let budget = Budget::new(Amount::new(10, 10 * MIB));
        let [one, other] = [(); 2].map(|()| Account::new(Arc::clone(&budget)));
        assert!(!one.charge(1), "nothing is reserved");
        assert!(one.reserve(Amount::new(3, 8 * MIB), false));
        assert!(!other.reserve(Amount::new(3, 3 * MIB), false) && !other.reserve(Amount::new(8, MIB), false));
        assert_eq!(other.reserved(), Amount::default());
        assert!(other.reserve(Amount::new(3, 2 * MIB), false));
        assert!(one.charge(8 * MIB) && !one.charge(1), "bytes");
        assert!(other.charge(0) && other.charge(0) && other.charge(0) && !other.charge(0), "regions");
        one.release(8 * MIB);
        assert!(one.charge(MIB) && !one.charge(u64::MAX));
        // Asked for less, it keeps what it has.
        assert!(one.reserve(Amount::new(1, 0), false));
        assert_eq!(one.reserved(), Amount::new(3, 8 * MIB));
        drop(one);
        assert!(other.reserve(Amount::new(10, 10 * MIB), false));
    }

    #[test]
    fn half_is_kept_for_those_who_ask() {
        let budget = Budget::new(Amount::new(1000, 10 * MIB));
        let idle: Vec<_> = (0..20).map(|_| Account::new(Arc::clone(&budget))).collect();
        let one = Amount::new(1, MIB);
        assert_eq!(idle.iter().filter(|account| account.reserve(one, true)).count(), 5);
        assert!(idle[19].reserve(one, false));
    }
}
