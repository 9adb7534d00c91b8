//! A set of slots that gives its lowest member in a few instructions: a bitmap, and above it a bitmap of the words that
//! are not empty.

const BITS: usize = u64::BITS as usize;
/// 65,536 slots are 1,024 words, and these are 16 words of summary.
const SUMMARY_WORDS: usize = (u16::MAX as usize + 1) / BITS / BITS;

/// A set of slots.
#[derive(Debug, Default)]
pub(super) struct SlotSet {
    /// A bit per slot.
    words: Vec<u64>,
    /// A bit per word of `words` that is not zero.
    summary: [u64; SUMMARY_WORDS],
}

impl SlotSet {
    /// Makes room for slots up to this one, so that inserting it allocates nothing.
    #[inline]
    pub(super) fn reserve(&mut self, slot: u16) {
        let words = usize::from(slot) / BITS + 1;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Puts a slot in.
    #[inline]
    pub(super) fn insert(&mut self, slot: u16) {
        self.reserve(slot);
        let word = usize::from(slot) / BITS;
        self.words[word] |= 1 << (usize::from(slot) % BITS);
        self.summary[word / BITS] |= 1 << (word % BITS);
    }

    /// Takes the lowest slot out.
    #[inline]
    pub(super) fn take_lowest(&mut self) -> Option<u16> {
        let group = self.summary.iter().position(|&words| words != 0)?;
        let word = group * BITS + self.summary[group].trailing_zeros() as usize;
        let bit = self.words[word].trailing_zeros() as usize;
        self.words[word] &= self.words[word] - 1;
        if self.words[word] == 0 {
            self.summary[group] &= self.summary[group] - 1;
        }
        u16::try_from(word * BITS + bit).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_lowest_comes_first_over_the_whole_range() {
        let mut set = SlotSet::default();
        assert_eq!(set.take_lowest(), None);
        for slot in [65_535, 4096, 63, 64, 0, 4095] {
            set.insert(slot);
        }
        let taken: Vec<_> = std::iter::from_fn(|| set.take_lowest()).collect();
        assert_eq!(taken, [0, 63, 64, 4095, 4096, 65_535]);
    }

    proptest::proptest! {
        #[test]
        fn it_is_a_sorted_set(steps in proptest::collection::vec(proptest::option::of(0..300u16), 0..200)) {
            let (mut set, mut model) = (SlotSet::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Some(slot) => {
                        set.insert(slot);
                        model.insert(slot);
                    }
                    None => assert_eq!(set.take_lowest(), model.pop_first()),
                }
            }
        }
    }
}
