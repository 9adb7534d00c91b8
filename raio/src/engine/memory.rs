//! How much pool memory the answers in flight will take, so that the pool's limit makes operations wait rather than
//! fail.

use libxio::{Landing, Pool};

/// Sizes of the pool's buffers in bytes; a length takes the smallest that holds it.
const SIZES: [usize; 7] = [512, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];

/// Most that a landing will take from the pool, in bytes.
#[inline]
pub(crate) fn pool_bytes(landing: &Landing) -> usize {
    let Landing::Pool(room) = landing else { return 0 };
    let room = *room as usize;
    // What is asked for most.
    if (SIZES[0] + 1..=SIZES[1]).contains(&room) {
        return SIZES[1];
    }
    SIZES.into_iter().find(|size| room <= *size).unwrap_or(room.next_multiple_of(4 << 20))
}

/// Pool memory that is spoken for by operations in flight.
#[derive(Debug, Default)]
pub(super) struct Promised(usize);

impl Promised {
    /// Whether an answer of this size will find its memory. With nothing promised it is tried anyway: only the
    /// caller can free something then, and must hear of it.
    #[inline]
    pub(super) fn fits(&self, bytes: usize, pool: &Pool) -> bool {
        bytes == 0 || self.0 == 0 || pool.bytes_in_use() + self.0 + bytes <= pool.bytes_max()
    }

    #[inline]
    pub(super) fn add(&mut self, bytes: usize) {
        self.0 += bytes;
    }

    #[inline]
    pub(super) fn subtract(&mut self, bytes: usize) {
        self.0 -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libxio::PoolOptions;

    #[test]
    fn shares_are_those_of_the_pool() {
        let pool = Pool::new(PoolOptions::default());
        for length in [0, 1, 512, 513, 5000, 70_000, 1 << 20, 4 << 20] {
            let before = pool.bytes_in_use();
            let taken = pool.take(length as usize).unwrap();
            assert_eq!(pool_bytes(&Landing::Pool(length)), pool.bytes_in_use() - before, "{length}");
            drop(taken);
        }
        assert_eq!(pool_bytes(&Landing::None), 0);
    }

    #[test]
    fn the_first_is_let_through_and_the_others_only_if_they_fit() {
        let pool = Pool::new(PoolOptions { bytes_max: 8192, huge_pages: false });
        let mut promised = Promised::default();
        assert!(promised.fits(1 << 20, &pool));
        promised.add(4096);
        assert!(promised.fits(4096, &pool) && !promised.fits(8192, &pool));
        let held = pool.take(4096).unwrap();
        assert!(!promised.fits(4096, &pool) && promised.fits(0, &pool));
        drop(held);
        promised.subtract(4096);
        assert!(promised.fits(8192, &pool));
    }
}
