//! Entries with a small number each. It allocates only when it grows beyond what it ever held.

/// A table of `T` whose free places are used again, the last freed first.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    /// Head of the list of free places.
    free: Option<usize>,
    length: usize,
}

#[derive(Debug)]
enum Place<T> {
    Taken(T),
    /// The next free place.
    Free(Option<usize>),
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { places: Vec::new(), free: None, length: 0 }
    }
}

impl<T> Slab<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Slab<T> {
        Slab::default()
    }

    /// Whether no entry is in it.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Entries in it.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Adds an entry and says its number, the smallest that fits if nothing was removed yet.
    #[inline]
    pub fn insert(&mut self, entry: T) -> usize {
        self.length += 1;
        match self.free {
            Some(index) => {
                if let Place::Free(next) = self.places[index] {
                    self.free = next;
                }
                self.places[index] = Place::Taken(entry);
                index
            }
            None => {
                self.places.push(Place::Taken(entry));
                self.places.len() - 1
            }
        }
    }

    /// Takes an entry out; `None` where there is none.
    #[inline]
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let place = self.places.get_mut(index)?;
        if matches!(place, Place::Free(_)) {
            return None;
        }
        match std::mem::replace(place, Place::Free(self.free)) {
            Place::Taken(entry) => {
                self.free = Some(index);
                self.length -= 1;
                Some(entry)
            }
            Place::Free(_) => None,
        }
    }

    /// The entry with this number.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match self.places.get_mut(index) {
            Some(Place::Taken(entry)) => Some(entry),
            _ => None,
        }
    }

    /// The number of an entry that fits.
    pub fn find(&self, fits: impl Fn(&T) -> bool) -> Option<usize> {
        self.places.iter().position(|place| matches!(place, Place::Taken(entry) if fits(entry)))
    }

    /// The numbers of all entries.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        let taken = |(number, place): (usize, &Place<T>)| matches!(place, Place::Taken(_)).then_some(number);
        self.places.iter().enumerate().filter_map(taken)
    }

    /// Takes out all entries.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.free = None;
        self.length = 0;
        self.places.drain(..).filter_map(|place| match place {
            Place::Taken(entry) => Some(entry),
            Place::Free(_) => None,
        })
    }

    /// All entries.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().filter_map(|place| match place {
            Place::Taken(entry) => Some(entry),
            Place::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::new();
        let numbers: Vec<_> = (0..4).map(|entry| slab.insert(entry)).collect();
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert_eq!((slab.remove(1), slab.remove(1), slab.remove(9)), (Some(1), None, None));
        assert_eq!(slab.remove(3), Some(3));
        assert_eq!((slab.insert(30), slab.insert(10), slab.insert(40)), (3, 1, 4));
        assert_eq!((slab.len(), slab.get_mut(1)), (5, Some(&mut 10)));
        slab.remove(0);
        assert_eq!((slab.find(|entry| *entry == 2), slab.find(|entry| *entry == 0)), (Some(2), None));
        assert_eq!(slab.numbers().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(slab.insert(0), 0);
        assert_eq!(slab.drain().collect::<Vec<_>>(), [0, 10, 2, 30, 40]);
        assert_eq!((slab.len(), slab.insert(7)), (0, 0));
        assert_eq!(slab.iter_mut().count(), 1);
    }
}
