//! How much of its peers' memory a process maps: a [`Budget`] for all links together, and an [`Account`] for each of them,
//! which has to reserve before it maps. What is mapped counts until it is unmapped, whoever keeps it that long; what a link
//! has reserved is free again when its last memory is unmapped, or when the peer has given it back.

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

    /// The greater of each.
    pub(crate) fn max(self, other: Amount) -> Amount {
        Amount::new(self.regions.max(other.regions), self.bytes.max(other.bytes))
    }

    pub(crate) fn holds(self, other: Amount) -> bool {
        other.regions <= self.regions && other.bytes <= self.bytes
    }

    fn half(self) -> Amount {
        Amount::new(self.regions / 2, self.bytes / 2)
    }
}

/// For what something is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A link can't be without it: all that is free.
    Needed,
    /// Before it is asked for: while half of all is free, so that those who have no use for theirs yet can't leave those who
    /// have one without any.
    AtFirst,
    /// As it is asked for, beyond what it needed: a part is left to what others need, and of the rest nobody has more than
    /// is then free to all others.
    Asked { needed: Amount },
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

    /// Reserves so much more for an account that has so much, or nothing.
    fn reserve(&self, more: Amount, own: Amount, purpose: Purpose) -> bool {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let after = reserved.plus(more);
        let fits = match purpose {
            Purpose::Needed => self.total.holds(after),
            Purpose::AtFirst => self.total.half().holds(after),
            Purpose::Asked { needed } => {
                let limit = self.total.minus(self.total.half().half().half());
                let free = limit.minus(reserved.minus(own)).minus(needed);
                // Whoever has enough already may ask for it again.
                more == Amount::default()
                    || (limit.holds(after) && free.half().holds(own.plus(more).minus(needed)))
            }
        };
        if fits {
            *reserved = after;
        }
        fits
    }

    /// A part that is taken until it is dropped, of what is free.
    fn take(self: &Arc<Budget>, bytes: u64) -> Option<Share> {
        let amount = Amount::new(0, bytes);
        let fits = self.reserve(amount, Amount::default(), Purpose::Needed);
        fits.then(|| Share { budget: Arc::clone(self), amount })
    }

    fn give_back(&self, amount: Amount) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = reserved.minus(amount);
    }
}

/// A part of a budget.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    amount: Amount,
}

impl Share {
    pub(crate) fn bytes(&self) -> u64 {
        self.amount.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.amount);
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
    /// All that was mapped once and is no more.
    unmapped: Amount,
}

impl Account {
    pub(crate) fn new(budget: Arc<Budget>) -> Account {
        Account { budget, state: Mutex::default() }
    }

    /// An account of nobody's, for memory that a process shares with itself.
    pub(crate) fn unlimited() -> Account {
        let account = Account::new(Budget::new(Amount::MAX));
        account.reserve(Amount::MAX, Purpose::Needed);
        account
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises what is reserved to `wanted`, if there is so much for the purpose.
    pub(crate) fn reserve(&self, wanted: Amount, purpose: Purpose) -> bool {
        let mut state = self.state();
        let more = wanted.minus(state.reserved);
        let given = self.budget.reserve(more, state.reserved, purpose);
        if given {
            state.reserved = state.reserved.plus(more);
        }
        given
    }

    /// Gives back what is reserved beyond `wanted`, but for what is mapped.
    pub(crate) fn lower(&self, wanted: Amount) {
        let mut state = self.state();
        let spare = state.reserved.minus(wanted.max(state.mapped));
        state.reserved = state.reserved.minus(spare);
        self.budget.give_back(spare);
    }

    pub(crate) fn reserved(&self) -> Amount {
        self.state().reserved
    }

    /// What was unmapped since the link began.
    pub(crate) fn unmapped(&self) -> Amount {
        self.state().unmapped
    }

    /// Room for pages that are pinned: pinned and taken out of its file by the peer, memory is there twice.
    pub(super) fn take_for_pinning(&self, bytes: u64) -> Option<Share> {
        self.budget.take(bytes)
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
        state.unmapped = state.unmapped.plus(Amount::new(1, bytes));
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
    const ASKED: Purpose = Purpose::Asked { needed: Amount { regions: 0, bytes: 0 } };

    #[test]
    fn nothing_is_mapped_beyond_what_is_reserved_nor_reserved_beyond_the_total() {
        let budget = Budget::new(Amount::new(10, 10 * MIB));
        let [one, other] = [(); 2].map(|()| Account::new(Arc::clone(&budget)));
        assert!(!one.charge(1), "nothing is reserved");
        assert!(one.reserve(Amount::new(3, 8 * MIB), Purpose::Needed));
        assert!(
            !other.reserve(Amount::new(3, 3 * MIB), Purpose::Needed)
                && !other.reserve(Amount::new(8, MIB), Purpose::Needed)
        );
        assert_eq!(other.reserved(), Amount::default());
        assert!(other.reserve(Amount::new(3, 2 * MIB), Purpose::Needed));
        assert!(one.charge(8 * MIB) && !one.charge(1), "bytes");
        assert!(other.charge(0) && other.charge(0) && other.charge(0) && !other.charge(0), "regions");
        one.release(8 * MIB);
        assert!(one.charge(MIB) && !one.charge(u64::MAX));
        // Asked for less, it keeps what it has.
        assert!(one.reserve(Amount::new(1, 0), Purpose::Needed));
        assert_eq!(one.reserved(), Amount::new(3, 8 * MIB));
        drop(one);
        assert!(other.reserve(Amount::new(10, 10 * MIB), Purpose::Needed));
    }

    #[test]
    fn what_is_given_back_is_free_for_others_but_for_what_is_mapped() {
        let budget = Budget::new(Amount::new(10, 10 * MIB));
        let [one, other] = [(); 2].map(|()| Account::new(Arc::clone(&budget)));
        assert!(one.reserve(Amount::new(10, 8 * MIB), Purpose::Needed) && one.charge(3 * MIB));
        one.lower(Amount::new(20, MIB));
        assert_eq!(one.reserved(), Amount::new(10, 3 * MIB));
        one.release(3 * MIB);
        assert_eq!((one.reserved(), one.unmapped()), (Amount::new(10, 3 * MIB), Amount::new(1, 3 * MIB)));
        one.lower(Amount::default());
        assert_eq!(one.reserved(), Amount::default());
        assert!(other.reserve(Amount::new(10, 10 * MIB), Purpose::Needed));
    }

    #[test]
    fn half_is_kept_for_those_who_ask() {
        let budget = Budget::new(Amount::new(1000, 10 * MIB));
        let idle: Vec<_> = (0..20).map(|_| Account::new(Arc::clone(&budget))).collect();
        let one = Amount::new(1, MIB);
        assert_eq!(idle.iter().filter(|account| account.reserve(one, Purpose::AtFirst)).count(), 5);
        assert!(idle[19].reserve(one, Purpose::Needed));
    }

    #[test]
    fn who_asks_leaves_something_to_the_others() {
        let budget = Budget::new(Amount::new(800, 800 * MIB));
        let accounts: Vec<_> = (0..40).map(|_| Account::new(Arc::clone(&budget))).collect();
        let greedy = &accounts[0];
        assert!(!greedy.reserve(Amount::new(1, 351 * MIB), ASKED), "more than half of seven eighths");
        assert!(greedy.reserve(Amount::new(350, 350 * MIB), ASKED));
        assert!(greedy.reserve(Amount::new(350, 350 * MIB), ASKED), "what it has");
        assert!(!greedy.reserve(Amount::new(351, 350 * MIB), ASKED));
        for account in &accounts[1..] {
            let mut wanted = 400;
            while wanted > 0 && !account.reserve(Amount::new(wanted, u64::from(wanted) * MIB), ASKED) {
                wanted /= 2;
            }
        }
        let late = Account::new(Arc::clone(&budget));
        assert!(late.reserve(Amount::new(100, 100 * MIB), Purpose::Needed), "an eighth is kept");
    }

    #[test]
    fn what_is_pinned_counts_until_it_is_not() {
        let budget = Budget::new(Amount::new(4, 4 * MIB));
        let account = Account::new(Arc::clone(&budget));
        assert!(account.reserve(Amount::new(1, 2 * MIB), Purpose::Needed));
        let share = account.take_for_pinning(2 * MIB).unwrap();
        assert_eq!(share.bytes(), 2 * MIB);
        assert!(account.take_for_pinning(1).is_none());
        drop(share);
        assert!(account.take_for_pinning(1).is_some());
    }
}
