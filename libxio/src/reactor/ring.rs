//! One io_uring: operations go in with a [`Ticket`], completions come out with it.
//!
//! Two kinds of ring: a *pinned* one belongs to the thread that made it and runs its task work only when asked
//! (`SINGLE_ISSUER`, `DEFER_TASKRUN`); a *movable* one may be driven from any thread, one at a time. Kernels without
//! these flags (before 6.1) get plain rings.

use crate::mem::{RawEntries, Sgl};
use crate::{Error, Result};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Tells completions apart: kind, stamp (24 bits, so that a late one is known) and index of the entry concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub kind: TicketKind,
    pub stamp: u32,
    pub index: u32,
}

/// What an operation in the ring was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TicketKind {
    Link = 1,
    Listener = 2,
    Descriptor = 3,
    File = 4,
    Wake = 5,
    Timeout = 6,
    /// Its completion says nothing that anybody wants to know.
    Ignored = 7,
    /// A word by which the peer of a link wakes.
    Word = 8,
}

/// Stamps are counted in this many bits.
pub(crate) const STAMP_MASK: u32 = (1 << 24) - 1;

impl Ticket {
    fn encode(self) -> u64 {
        (self.kind as u64) << 56 | u64::from(self.stamp & STAMP_MASK) << 32 | u64::from(self.index)
    }

    fn decode(value: u64) -> Option<Ticket> {
        let kind = match value >> 56 {
            1 => TicketKind::Link,
            2 => TicketKind::Listener,
            3 => TicketKind::Descriptor,
            4 => TicketKind::File,
            5 => TicketKind::Wake,
            6 => TicketKind::Timeout,
            8 => TicketKind::Word,
            _ => return None,
        };
        // The masks make the casts exact.
        Some(Ticket { kind, stamp: (value >> 32) as u32 & STAMP_MASK, index: value as u32 })
    }
}

/// Where a write goes, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WritePlace {
    pub fd: RawFd,
    pub offset: u64,
    /// With RWF_DSYNC.
    pub durable: bool,
}

impl WritePlace {
    fn flags(self) -> i32 {
        if self.durable { libc::RWF_DSYNC } else { 0 }
    }
}

/// A submission and completion ring.
pub(crate) struct Ring {
    ring: IoUring,
    /// Entries that found the submission queue full twice; they go first next time.
    backlog: VecDeque<squeue::Entry>,
    /// System calls so far.
    enters: u64,
    /// Time given to the `Timeout` operation in flight; boxed, since the kernel reads it at submission.
    timeout: Box<types::Timespec>,
    /// The kernel can wait on words of memory (Linux 6.7).
    waits_on_words: bool,
    /// Sleep in poll(2) on the ring's descriptor instead of in the ring: see [`under_valgrind`].
    sleeps_in_poll: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.ring.as_raw_fd()).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for `entries` submissions at a time.
    pub(crate) fn new(entries: u32, pinned: bool) -> Result<Ring> {
        // The descriptor of a ring with DEFER_TASKRUN is not woken for work that waits to be done.
        let sleeps_in_poll = under_valgrind();
        let pinned = pinned && !sleeps_in_poll;
        let full = || {
            let mut builder = IoUring::builder();
            builder
                .dontfork()
                .setup_clamp()
                .setup_submit_all()
                .setup_cqsize(entries.saturating_mul(4).max(4096));
            if pinned {
                builder.setup_single_issuer().setup_defer_taskrun();
            } else {
                builder.setup_coop_taskrun();
            }
            builder.setup_taskrun_flag();
            builder.build(entries)
        };
        let ring = match full() {
            Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => {
                IoUring::builder().dontfork().setup_clamp().build(entries)
            }
            other => other,
        };
        let ring = ring.map_err(|cause| refused(&cause))?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(Error::RingRefused {
                cause: "it lacks EXT_ARG or NODROP".into(),
                advice: "Linux 5.11 or newer is needed",
            });
        }
        let timeout = Box::new(types::Timespec::new());
        let mut probe = Probe::new();
        let waits_on_words = ring.submitter().register_probe(&mut probe).is_ok()
            && probe.is_supported(opcode::FutexWait::CODE);
        Ok(Ring { ring, backlog: VecDeque::new(), enters: 0, timeout, waits_on_words, sleeps_in_poll })
    }

    /// The ring's descriptor, for as long as the ring lives.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor and keeps it open, and the result borrows the ring.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    pub(crate) fn enters(&self) -> u64 {
        self.enters
    }

    /// One readiness of a descriptor (`POLLIN`, `POLLOUT`).
    pub(crate) fn poll(&mut self, fd: RawFd, events: i16, ticket: Ticket) {
        // The event bits are the low 16 of the mask.
        self.push(opcode::PollAdd::new(types::Fd(fd), u32::from(events as u16)).build(), ticket);
    }

    /// Takes back a `poll` that has not fired.
    pub(crate) fn cancel_poll(&mut self, ticket: Ticket) {
        self.push(opcode::PollRemove::new(ticket.encode()).build(), IGNORED);
    }

    /// Whether [`Ring::wait_on_word`] is to be had.
    pub(crate) fn waits_on_words(&self) -> bool {
        self.waits_on_words
    }

    /// Completes once a word of memory, perhaps shared, has another value or who waits on it is woken (futex(2)). A word that is
    /// not mapped is an error of the completion.
    pub(crate) fn wait_on_word(&mut self, address: *const u32, value: u32, ticket: Ticket) {
        let entry = opcode::FutexWait::new(address, value.into(), ANY_WAKER, FUTEX2_SIZE_U32).build();
        self.push(entry, ticket);
    }

    /// Asks for the end of any operation.
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        self.push(opcode::AsyncCancel::new(ticket.encode()).build(), IGNORED);
    }

    /// Makes a table for so many fixed buffers, all empty.
    pub(crate) fn make_buffer_table(&self, places: u32) -> io::Result<()> {
        self.ring.submitter().register_buffers_sparse(places)
    }

    /// Pins memory at a place of the table.
    pub(crate) fn set_buffer(&self, place: u16, start: *mut u8, length: usize) -> io::Result<()> {
        let entry = libc::iovec { iov_base: start.cast(), iov_len: length };
        // SAFETY: the kernel takes hold of the pages themselves; an operation that names the place names an address in
        // memory that is mapped as long as the operation runs.
        unsafe { self.ring.submitter().register_buffers_update(u32::from(place), &[entry], None) }
    }

    /// Lets go of what is pinned there.
    pub(crate) fn clear_buffer(&self, place: u16) -> io::Result<()> {
        self.set_buffer(place, std::ptr::null_mut(), 0)
    }

    /// Reads into the first piece of `into`, which the caller keeps where it is until the completion; `fixed` is its place in
    /// the table of buffers.
    pub(crate) fn read(&mut self, fd: RawFd, into: &Sgl, offset: u64, fixed: Option<u16>, ticket: Ticket) {
        let (pointer, length) = first_piece(into);
        let fd = types::Fd(fd);
        let entry = match fixed {
            Some(place) => opcode::ReadFixed::new(fd, pointer, length, place).offset(offset).build(),
            None => opcode::Read::new(fd, pointer, length).offset(offset).build(),
        };
        self.push(entry, ticket);
    }

    /// Writes the one piece of `from`, which the caller keeps until the completion; `fixed` as in [`Ring::read`].
    pub(crate) fn write(&mut self, to: WritePlace, from: &Sgl, fixed: Option<u16>, ticket: Ticket) {
        let (pointer, length) = first_piece(from);
        let (fd, flags) = (types::Fd(to.fd), to.flags());
        let entry = match fixed {
            Some(place) => {
                opcode::WriteFixed::new(fd, pointer, length, place).offset(to.offset).rw_flags(flags).build()
            }
            None => opcode::Write::new(fd, pointer, length).offset(to.offset).rw_flags(flags).build(),
        };
        self.push(entry, ticket);
    }

    /// Writes several pieces; the entries and what they name stay until the completion.
    pub(crate) fn write_vectored(&mut self, to: WritePlace, entries: &RawEntries, ticket: Ticket) {
        let (pointer, count) = entries.raw();
        let entry = opcode::Writev::new(types::Fd(to.fd), pointer, count);
        self.push(entry.offset(to.offset).rw_flags(to.flags()).build(), ticket);
    }

    pub(crate) fn sync(&mut self, fd: RawFd, data_only: bool, ticket: Ticket) {
        let flags = if data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
        self.push(opcode::Fsync::new(types::Fd(fd)).flags(flags).build(), ticket);
    }

    pub(crate) fn allocate(&mut self, fd: RawFd, mode: i32, offset: u64, length: u64, ticket: Ticket) {
        self.push(opcode::Fallocate::new(types::Fd(fd), length).offset(offset).mode(mode).build(), ticket);
    }

    /// A completion after `time`, which makes the ring's descriptor readable.
    pub(crate) fn timeout(&mut self, time: Duration, ticket: Ticket) {
        *self.timeout = types::Timespec::from(time);
        let entry = opcode::Timeout::new(&raw const *self.timeout).build();
        self.push(entry, ticket);
    }

    pub(crate) fn cancel_timeout(&mut self, ticket: Ticket) {
        self.push(opcode::TimeoutRemove::new(ticket.encode()).build(), IGNORED);
    }

    fn push(&mut self, entry: squeue::Entry, ticket: Ticket) {
        let entry = entry.user_data(ticket.encode());
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            // A full queue empties by submitting; what still does not fit waits for the next turn.
            let _ = self.submit();
            if !self.backlog.is_empty() || !self.try_push(&entry) {
                self.backlog.push_back(entry);
            }
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: whatever the entry points to is owned by the context until the completion with its ticket arrives:
        // file operations keep their memory in the table of operations, the timeout's time is boxed in `self`. Of a word that
        // is waited on the kernel only reads, and what is not mapped any more is an error of the operation.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    /// Whether entries wait to be submitted.
    pub(crate) fn has_submissions(&mut self) -> bool {
        !self.backlog.is_empty() || !self.ring.submission().is_empty()
    }

    /// Hands what was queued to the kernel, without waiting.
    pub(crate) fn submit(&mut self) -> Result<()> {
        while let Some(entry) = self.backlog.front().cloned() {
            if !self.try_push(&entry) {
                break;
            }
            self.backlog.pop_front();
        }
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.enters += 1;
        self.checked(self.ring.submit())
    }

    /// Whether completions are there, or the kernel has some to make.
    pub(crate) fn has_completions(&mut self) -> bool {
        if self.ring.submission().taskrun() {
            self.enters += 1;
            // SAFETY: no argument is passed; IORING_ENTER_GETEVENTS alone makes the kernel run its task work.
            let _ = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, 1, None) };
        }
        !self.ring.completion().is_empty()
    }

    /// Submits, then sleeps until a completion or the end of the time.
    pub(crate) fn wait(&mut self, time: Option<Duration>) -> Result<()> {
        if self.sleeps_in_poll {
            return self.wait_in_poll(time);
        }
        self.submit_backlog_only();
        self.enters += 1;
        let outcome = match time {
            Some(time) => {
                let timespec = types::Timespec::from(time);
                let arguments = types::SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
            None => self.ring.submit_and_wait(1),
        };
        self.checked(outcome)
    }

    fn wait_in_poll(&mut self, time: Option<Duration>) -> Result<()> {
        self.submit()?;
        if self.has_completions() {
            return Ok(());
        }
        // SAFETY: the ring, and its descriptor with it, is there until this call has returned.
        let fd = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::system("sleeping", &errno.into())),
        }
    }

    fn submit_backlog_only(&mut self) {
        while let Some(entry) = self.backlog.front().cloned() {
            if !self.try_push(&entry) {
                break;
            }
            self.backlog.pop_front();
        }
    }

    fn checked(&self, outcome: io::Result<usize>) -> Result<()> {
        match outcome {
            Ok(_) => Ok(()),
            Err(cause) => match cause.raw_os_error() {
                // Time over; a signal; completions to be taken first; no memory for now: the next turn goes on.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                Some(libc::EEXIST) => Err(Error::Unsupported(
                    "a pinned context was used by another thread than the one that made it",
                )),
                _ => Err(Error::system("io_uring_enter", &cause)),
            },
        }
    }

    /// The next completion: its ticket and the kernel's result.
    pub(crate) fn next_completion(&mut self) -> Option<(Ticket, i32)> {
        loop {
            let entry = self.ring.completion().next()?;
            if let Some(ticket) = Ticket::decode(entry.user_data()) {
                return Some((ticket, entry.result()));
            }
        }
    }
}

/// FUTEX_BITSET_MATCH_ANY of linux/futex.h.
const ANY_WAKER: u64 = u32::MAX as u64;
/// Of linux/futex.h: the word has 32 bits; without FUTEX2_PRIVATE, it may be shared.
const FUTEX2_SIZE_U32: u32 = 2;

const IGNORED: Ticket = Ticket { kind: TicketKind::Ignored, stamp: 0, index: 0 };

/// Whether this process runs under valgrind, which preloads a library of its own. Its versions before 3.20 don't know that
/// io_uring_enter(2) may block, and keep all other threads from running meanwhile.
fn under_valgrind() -> bool {
    std::env::var_os("LD_PRELOAD").is_some_and(|list| list.to_string_lossy().contains("vgpreload_"))
}

fn first_piece(list: &Sgl) -> (*mut u8, u32) {
    match list.pieces().first() {
        // A list holds at most u32::MAX bytes.
        Some(piece) => (piece.as_ptr(), piece.len() as u32),
        None => (std::ptr::NonNull::dangling().as_ptr(), 0),
    }
}

fn refused(cause: &io::Error) -> Error {
    let advice = match cause.raw_os_error() {
        Some(libc::ENOSYS) => {
            "the kernel has no io_uring (Linux 5.11 or newer is needed), or a seccomp filter hides it: containers \
             need a profile that allows io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "set the sysctl kernel.io_uring_disabled to 0 (1 allows the group kernel.io_uring_group only), or use a \
             seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(libc::ENOMEM) => "raise the limit on locked memory (ulimit -l), or the memory group's limit",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit on open files (ulimit -n)",
        _ => "see io_uring_setup(2) for this error",
    };
    Error::RingRefused { cause: cause.to_string(), advice }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Buffer;
    use std::io::Write;

    const FILE: Ticket = Ticket { kind: TicketKind::File, stamp: 77, index: 5 };

    #[test]
    fn a_read_completes_with_its_ticket() {
        for pinned in [true, false] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"0123456789").unwrap();
            let mut ring = Ring::new(8, pinned).unwrap();
            let into = Sgl::from(Buffer::from_vec(vec![0; 4]));
            ring.read(file.as_raw_fd(), &into, 3, None, FILE);
            let mut turns = 0;
            let found = loop {
                ring.wait(Some(Duration::from_secs(5))).unwrap();
                if let Some(found) = ring.next_completion() {
                    break found;
                }
                turns += 1;
                assert!(turns < 10);
            };
            assert_eq!(found, (FILE, 4));
            assert_eq!(into.to_vec(), b"3456");
        }
    }

    #[test]
    fn a_ring_that_sleeps_in_poll_wakes_for_completions_and_time() {
        let mut ring = Ring::new(8, false).unwrap();
        ring.sleeps_in_poll = true;
        ring.wait(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(ring.next_completion(), None);
        ring.timeout(Duration::from_millis(5), FILE);
        let mut turns = 0;
        while ring.next_completion().is_none() {
            // Without an end: a ring that does not wake is found by the test runner's time limit.
            ring.wait(None).unwrap();
            ring.has_completions();
            turns += 1;
            assert!(turns < 10);
        }
    }

    #[test]
    fn a_word_that_changes_ends_its_wait() {
        use rustix::thread::futex;
        use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
        let word: &'static AtomicU32 = Box::leak(Box::new(AtomicU32::new(5)));
        for pinned in [true, false] {
            let mut ring = Ring::new(8, pinned).unwrap();
            if !ring.waits_on_words() {
                return;
            }
            word.store(5, SeqCst);
            let wait_for = |ring: &mut Ring, value, expected: i32| {
                ring.wait_on_word(word.as_ptr(), value, FILE);
                for _ in 0..10 {
                    ring.wait(Some(Duration::from_secs(5))).unwrap();
                    if let Some(found) = ring.next_completion() {
                        assert_eq!(found, (FILE, expected));
                        return;
                    }
                }
                panic!("it is not woken");
            };
            wait_for(&mut ring, 4, -libc::EAGAIN);
            let waker = std::thread::spawn(move || {
                // Until it waits: none is woken before. The value stays, so that it is the waking which ends the wait.
                while futex::wake(word, futex::Flags::empty(), 1).unwrap() == 0 {
                    std::thread::yield_now();
                }
            });
            wait_for(&mut ring, 5, 0);
            waker.join().unwrap();
            ring.wait_on_word(word.as_ptr(), 5, FILE);
            ring.cancel(FILE);
            ring.wait(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(ring.next_completion(), Some((FILE, -libc::ECANCELED)));
        }
    }

    #[test]
    fn more_operations_than_entries_are_queued() {
        let mut ring = Ring::new(2, true).unwrap();
        for _ in 0..100 {
            ring.timeout(Duration::from_nanos(1), FILE);
        }
        let mut seen = 0;
        for _ in 0..1000 {
            ring.wait(Some(Duration::from_millis(100))).unwrap();
            while ring.next_completion().is_some() {
                seen += 1;
            }
            if seen == 100 {
                return;
            }
        }
        panic!("{seen} of 100 completions");
    }

    #[test]
    fn tickets_survive_the_journey() {
        let ticket = Ticket { kind: TicketKind::Link, stamp: STAMP_MASK, index: u32::MAX };
        assert_eq!(Ticket::decode(ticket.encode()), Some(ticket));
        assert_eq!(Ticket::decode(IGNORED.encode()), None);
    }
}
