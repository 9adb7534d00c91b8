//! The memory that I/O units read into and write from, in a form that transports know.

use raio::libxio::{Buffer, Region, Sgl};
use std::ptr::NonNull;

/// Size of a huge page in bytes; memory of at least one is rounded up to whole ones, so that it can lie in them.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory for all units of a job, registered, in huge pages if the system has some free.
///
/// # Errors
/// The messaging layer's, where the system has no memory.
pub fn allocate(bytes: usize) -> Result<Region, raio::Error> {
    let rounded = if bytes >= HUGE_PAGE_BYTES { bytes.next_multiple_of(HUGE_PAGE_BYTES) } else { bytes };
    Region::allocate(rounded, true).map_err(raio::Error::Local)
}

/// A list of the one piece of memory that a unit names.
///
/// # Safety
/// The memory must be valid for reads and writes of `length` bytes, and nobody else may touch it, until the operation
/// that takes the list has ended.
pub unsafe fn list(region: Option<&Region>, pointer: *mut u8, length: usize) -> Result<Sgl, raio::Error> {
    let within = region.and_then(|region| {
        let offset = pointer.addr().checked_sub(region.as_ptr().addr())?;
        region.slice(offset, length).ok()
    });
    let buffer = match (within, NonNull::new(pointer)) {
        (Some(buffer), _) => buffer,
        // SAFETY: the caller's promise.
        (None, Some(pointer)) => unsafe { Buffer::foreign(pointer, length) },
        (None, None) => return Ok(Sgl::new()),
    };
    let mut list = Sgl::new();
    list.push(buffer).map_err(raio::Error::Local)?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_region_is_known_as_its_part() {
        let region = allocate(1 << 16).unwrap();
        // SAFETY: the region has 64 KiB, and nobody else uses it.
        let list = unsafe { list(Some(&region), region.as_ptr().add(4096), 512) }.unwrap();
        assert!(format!("{list:?}").contains("region"), "{list:?}");
        assert_eq!((list.len(), list.pieces()[0].as_ptr()), (512, region.as_ptr().wrapping_add(4096)));
    }

    #[test]
    fn other_memory_is_used_where_it_is() {
        let region = allocate(4096).unwrap();
        let mut bytes = [0_u8; 64];
        // SAFETY: the array outlives the list and is not used meanwhile.
        let list = unsafe { list(Some(&region), bytes.as_mut_ptr(), 64) }.unwrap();
        assert!(format!("{list:?}").contains("foreign"), "{list:?}");
    }
}
