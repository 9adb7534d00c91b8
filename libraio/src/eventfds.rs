//! The caller's eventfds, written when a request that names one can be reaped.
//!
//! As the kernel's own AIO does, a request keeps the eventfd that its number meant when it was submitted: a duplicate is
//! written, so that closing the number, or using it again, sends nothing astray. Requests share duplicates.

use crate::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Duplicates kept for reuse while no request names them.
const IDLE_MAX: usize = 16;

/// `KCMP_FILE` of kcmp(2): whether two descriptors mean the same open file.
const KCMP_FILE: c_int = 0;

#[derive(Debug, Default)]
pub(crate) struct EventFds {
    /// A request holds the number of its entry.
    entries: Vec<Option<Entry>>,
    /// Requests that name an eventfd and have not ended.
    waiting: usize,
}

#[derive(Debug)]
struct Entry {
    /// The caller's number for it.
    number: c_int,
    duplicate: OwnedFd,
    /// Requests that name it.
    users: usize,
}

impl EventFds {
    /// Requests that name an eventfd and have not ended.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// A request names an eventfd.
    pub(crate) fn begin(&mut self, number: c_int) -> Result<usize, Errno> {
        let found = self.entries.iter().position(|entry| {
            entry.as_ref().is_some_and(|entry| entry.number == number && entry.still_means(number))
        });
        let index = match found {
            Some(index) => index,
            None => self.insert(Entry { number, duplicate: duplicate(number)?, users: 0 }),
        };
        if let Some(Some(entry)) = self.entries.get_mut(index) {
            entry.users += 1;
            self.waiting += 1;
        }
        Ok(index)
    }

    /// The request has ended; its eventfd is written if that is to be told.
    pub(crate) fn end(&mut self, index: usize, tell: bool) {
        let Some(Some(entry)) = self.entries.get_mut(index) else { return };
        if tell {
            entry.write();
        }
        entry.users -= 1;
        self.waiting -= 1;
    }

    fn insert(&mut self, entry: Entry) -> usize {
        // An idle entry with this number means another file by now.
        let stale = |old: &Entry| old.users == 0 && old.number == entry.number;
        self.entries.iter_mut().for_each(|place| {
            place.take_if(|old| stale(old));
        });
        let idle = self.entries.iter().flatten().filter(|entry| entry.users == 0).count();
        if idle >= IDLE_MAX {
            self.entries.iter_mut().for_each(|place| {
                place.take_if(|old| old.users == 0);
            });
        }
        match self.entries.iter().position(Option::is_none) {
            Some(index) => {
                self.entries[index] = Some(entry);
                index
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        }
    }
}

impl Entry {
    /// Whether the number still means the same file. Where the kernel doesn't say, it does as long as requests are
    /// out: nobody closes an eventfd that is going to be written.
    fn still_means(&self, number: c_int) -> bool {
        // SAFETY: kcmp compares and has no other effect; what is not open is an error.
        let order = unsafe {
            let own = libc::getpid();
            libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, number, self.duplicate.as_raw_fd())
        };
        order == 0 || (order < 0 && self.users > 0)
    }

    fn write(&self) {
        // A counter at its end would block, and says all that there is to say.
        let mut ready = [PollFd::new(&self.duplicate, PollFlags::OUT)];
        if poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count == 1) {
            let _ = rustix::io::write(&self.duplicate, &1_u64.to_ne_bytes());
        }
    }
}

fn duplicate(number: c_int) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::HANDLE);
    }
    // SAFETY: the descriptor is used for this one call, which says if it is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let duplicate = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
    let name = rustix::fs::readlink(format!("/proc/self/fd/{}", duplicate.as_raw_fd()), Vec::new());
    match name {
        Ok(name) if name.as_bytes() != b"anon_inode:[eventfd]" => Err(Errno::INVALID),
        // Without /proc it can't be told.
        _ => Ok(duplicate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn count(fd: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        match rustix::io::read(fd, &mut bytes) {
            Ok(_) => u64::from_ne_bytes(bytes),
            Err(_) => 0,
        }
    }

    fn make() -> OwnedFd {
        eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn each_request_adds_one() {
        let mut table = EventFds::default();
        let (one, two) = (make(), make());
        let (a, b) = (table.begin(one.as_raw_fd()).unwrap(), table.begin(one.as_raw_fd()).unwrap());
        let c = table.begin(two.as_raw_fd()).unwrap();
        assert!(a == b && a != c && table.waiting() == 3);
        table.end(a, true);
        table.end(b, true);
        assert_eq!((count(&one), count(&two)), (2, 0));
        table.end(c, false);
        assert_eq!((count(&two), table.waiting()), (0, 0));
    }

    #[test]
    fn a_number_used_again_is_not_mistaken() {
        let mut table = EventFds::default();
        let first = make();
        let number = first.as_raw_fd();
        let keep = first.try_clone().unwrap();
        let old = table.begin(number).unwrap();
        let second = make();
        // The number now means the second one.
        // SAFETY: `first` is replaced, and owns its number as before.
        assert_eq!(unsafe { libc::dup2(second.as_raw_fd(), number) }, number);
        let new = table.begin(number).unwrap();
        table.end(old, true);
        assert_eq!((count(&keep), count(&second)), (1, 0));
        table.end(new, true);
        assert_eq!((count(&keep), count(&second)), (0, 1));
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let mut table = EventFds::default();
        assert_eq!(table.begin(-1), Err(Errno::HANDLE));
        assert_eq!(table.begin(1_000_000), Err(Errno::HANDLE));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(table.begin(file.as_raw_fd()), Err(Errno::INVALID));
        let full = make();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let entry = table.begin(full.as_raw_fd()).unwrap();
        table.end(entry, true);
    }
}
