//! Asking for lines of cache before they are needed: with a thousand links, what belongs to each has left the caches when its
//! turn comes, and its lines come one after another where the next is only known from the last.

/// Bytes of a line of cache, nearly everywhere.
const LINE_BYTES: usize = 64;
/// The processor has so many loads on the way at most; asking for more would hold up what it does meanwhile.
const LINES_MAX: usize = 16;
/// Lines of a page: as far as the processor would not go by itself.
const PAGE_LINES: usize = 4096 / LINE_BYTES;

/// Into which cache, as the processor's instruction has it (_MM_HINT_T0 and _MM_HINT_T1).
const FIRST_CACHE: i32 = 3;
const SECOND_CACHE: i32 = 2;

/// Asks for what a value consists of, as far as it is in one place.
#[inline]
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    prefetch_bytes(std::ptr::from_ref(value).cast(), size_of_val(value));
}

/// Asks the processor for the beginning of some memory that is about to be read or written, at most 4 KiB of it, to be in its
/// second cache by then. A hint, which does nothing on processors that it is not known for.
#[inline]
pub fn prefetch_memory(memory: &[u8]) {
    prefetch_page(memory.as_ptr(), memory.len());
}

/// As [`prefetch_memory`], of memory that need not be there.
#[inline]
pub(crate) fn prefetch_page(start: *const u8, length: usize) {
    ask::<SECOND_CACHE>(start, length.div_ceil(LINE_BYTES).min(PAGE_LINES));
}

/// Asks for some bytes. They need not be there: it is a hint.
#[inline]
pub(crate) fn prefetch_bytes(start: *const u8, length: usize) {
    ask::<FIRST_CACHE>(start, length.div_ceil(LINE_BYTES).min(LINES_MAX));
}

/// Asks for some lines, where it is known how.
#[inline(always)]
fn ask<const HINT: i32>(start: *const u8, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..lines {
        // SAFETY: a prefetch never faults and changes nothing, whatever the address.
        unsafe { std::arch::x86_64::_mm_prefetch::<HINT>(start.wrapping_add(line * LINE_BYTES).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, lines);
}
