//! Memory that the caller registered, or had from `raio_alloc`. It belongs to the process, whatever context it was
//! registered with. A request finds its registration by the place in the token; the lock it takes is that place's own.

use crate::chunks::{Chunks, Numbers};
use crate::errno::Errno;
use crate::token::MEMORY;
use libxio::Region;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// Steps of 64 registrations: the place in a token has 20 bits.
const STEPS: usize = 16_384;

/// Longest stretch in bytes: what a file offset can count.
const LENGTH_MAX: usize = isize::MAX as usize;

#[derive(Debug)]
pub(crate) struct MemoryTable {
    places: Chunks<Place, STEPS>,
    /// Generations begin at 1.
    generation: AtomicU64,
    numbers: Mutex<Numbers>,
    /// Address and token of what `allocate` gave.
    allocated: Mutex<HashMap<usize, u64>>,
}

#[derive(Debug, Default)]
struct Place(RwLock<Option<Registration>>);

#[derive(Debug)]
struct Registration {
    token: u64,
    region: Region,
    /// Made by `allocate`, and so ended by `free` alone.
    allocated: bool,
}

impl MemoryTable {
    pub(crate) fn new() -> MemoryTable {
        MemoryTable {
            places: Chunks::new(),
            generation: AtomicU64::new(1),
            numbers: Mutex::default(),
            allocated: Mutex::default(),
        }
    }

    /// Registers memory of the caller.
    ///
    /// # Safety
    /// As [`Region::register`]: it stays valid until it is deregistered and requests over it have ended.
    pub(crate) unsafe fn register(&self, address: *mut u8, length: usize) -> Result<u64, Errno> {
        let pointer = NonNull::new(address).ok_or(Errno::NULL)?;
        if length == 0 || length > LENGTH_MAX || address.addr().checked_add(length).is_none() {
            return Err(Errno::INVALID);
        }
        // SAFETY: the caller's promise is passed on.
        self.insert(unsafe { Region::register(pointer, length) }, false)
    }

    /// Takes a registration back. Requests over it that are in flight keep what they need of it.
    pub(crate) fn deregister(&self, token: u64) -> Result<(), Errno> {
        self.remove(token, false)
    }

    /// The registration, to be used by a request that lies in it.
    pub(crate) fn find(&self, token: u64) -> Result<Region, Errno> {
        let place = MEMORY.place(token).and_then(|place| self.places.get(place)).ok_or(Errno::INVALID)?;
        match &*place.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(found) if found.token == token => Ok(found.region.clone()),
            _ => Err(Errno::INVALID),
        }
    }

    /// Zeroed memory that every transport likes best: its address and registration.
    pub(crate) fn allocate(&self, length: usize) -> Result<(*mut u8, u64), Errno> {
        if length == 0 || length > LENGTH_MAX {
            return Err(Errno::INVALID);
        }
        let region = Region::allocate(length, true).map_err(|_| Errno::NO_MEMORY)?;
        let address = region.as_ptr();
        let token = self.insert(region, true)?;
        self.allocated().insert(address.addr(), token);
        Ok((address, token))
    }

    /// Gives memory of `allocate` back; it is unmapped when the last request over it has ended.
    pub(crate) fn free(&self, address: *mut u8) -> Result<(), Errno> {
        let token = self.allocated().remove(&address.addr()).ok_or(Errno::INVALID)?;
        self.remove(token, true)
    }

    fn insert(&self, region: Region, allocated: bool) -> Result<u64, Errno> {
        let number = self.numbers().take(Chunks::<Place, STEPS>::PLACES).ok_or(Errno::NO_MEMORY)?;
        let place = self.places.make(number).ok_or(Errno::NO_MEMORY)?;
        let token = MEMORY.token(self.generation.fetch_add(1, Ordering::Relaxed), number);
        *place.0.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Registration { token, region, allocated });
        Ok(token)
    }

    fn remove(&self, token: u64, allocated: bool) -> Result<(), Errno> {
        let number = MEMORY.place(token).ok_or(Errno::INVALID)?;
        let place = self.places.get(number).ok_or(Errno::INVALID)?;
        let removed = place
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take_if(|found| found.token == token && found.allocated == allocated)
            .ok_or(Errno::INVALID)?;
        self.numbers().give_back(number);
        drop(removed);
        Ok(())
    }

    fn numbers(&self) -> std::sync::MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allocated(&self) -> std::sync::MutexGuard<'_, HashMap<usize, u64>> {
        self.allocated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_are_found_until_they_are_taken_back() {
        let table = MemoryTable::new();
        let mut memory = [0_u8; 64];
        // SAFETY: no request is made over the memory.
        let tokens: Vec<_> = memory
            .chunks_mut(8)
            .map(|part| unsafe { table.register(part.as_mut_ptr(), 8) }.unwrap())
            .collect();
        assert_eq!(table.find(tokens[3]).unwrap().len(), 8);
        table.deregister(tokens[3]).unwrap();
        assert_eq!(table.find(tokens[3]).unwrap_err(), Errno::INVALID);
        assert_eq!(table.deregister(tokens[3]), Err(Errno::INVALID));
        // SAFETY: as above.
        let again = unsafe { table.register(memory.as_mut_ptr(), 8) }.unwrap();
        assert!(!tokens.contains(&again));
        assert_eq!(table.find(tokens[3]).unwrap_err(), Errno::INVALID);
        for nonsense in [0, 1, u64::MAX, tokens[0] ^ 1 << 40, tokens[0] | 0xf_ffff] {
            assert_eq!(table.find(nonsense).unwrap_err(), Errno::INVALID, "{nonsense:#x}");
        }
    }

    #[test]
    fn what_can_not_be_memory_is_refused() {
        let table = MemoryTable::new();
        let somewhere = NonNull::<u8>::dangling().as_ptr();
        // SAFETY: nothing is registered.
        unsafe {
            assert_eq!(table.register(std::ptr::null_mut(), 8), Err(Errno::NULL));
            assert_eq!(table.register(somewhere, 0), Err(Errno::INVALID));
            assert_eq!(table.register(somewhere, usize::MAX), Err(Errno::INVALID));
        }
        assert_eq!(table.allocate(0), Err(Errno::INVALID));
        assert_eq!(table.allocate(usize::MAX), Err(Errno::INVALID));
        assert_eq!(table.allocate(1 << 60), Err(Errno::NO_MEMORY));
        assert_eq!(table.free(somewhere), Err(Errno::INVALID));
    }

    #[test]
    fn allocated_memory_is_given_back_by_free_only() {
        let table = MemoryTable::new();
        let (address, token) = table.allocate(10_000).unwrap();
        assert_eq!(table.find(token).unwrap().as_ptr(), address);
        assert_eq!(table.deregister(token), Err(Errno::INVALID));
        table.free(address).unwrap();
        assert_eq!(table.free(address), Err(Errno::INVALID));
        assert_eq!(table.find(token).unwrap_err(), Errno::INVALID);
    }
}
