//! Who is at the other end of a Unix socket, and whether we talk to them.

use crate::{Error, Result, Uri, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::BorrowedFd;

/// What the kernel shows in place of a user that has no number in our user namespace.
const NOBODY: u32 = 65_534;

/// A process at the other end, as it was when it connected or began to listen (SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    /// 0 for a process that our process namespace does not show.
    pub pid: i32,
}

impl Identity {
    pub(super) fn of_peer(socket: BorrowedFd<'_>) -> io::Result<Identity> {
        let credentials = sys::peer_credentials(socket)?;
        Ok(Identity { uid: credentials.uid, pid: credentials.pid })
    }

    /// Whether the process has ended; false where that can't be seen from here.
    pub(super) fn is_dead(self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Err(errno) => errno == Errno::SRCH,
            Ok(process) => {
                // Readable once it has ended, though its parent may not have looked yet.
                let mut watched = [PollFd::new(&process, PollFlags::IN)];
                poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
            }
        }
    }

    /// A number for the one who may see a region; never 0.
    pub(super) fn number(self) -> u32 {
        self.uid.saturating_add(1)
    }
}

/// Whose processes we talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AllowList {
    /// Our own user and root.
    Own,
    /// These as well.
    Also(Vec<u32>),
    Anybody,
}

impl AllowList {
    /// That of a uri: `?allow=any`, or user numbers with commas between them.
    ///
    /// # Errors
    /// [`Error::BadUri`].
    pub(super) fn of(uri: &Uri) -> Result<AllowList> {
        match uri.query("allow") {
            None => Ok(AllowList::Own),
            Some("any") => Ok(AllowList::Anybody),
            Some(list) => {
                let numbers: std::result::Result<Vec<u32>, _> = list.split(',').map(str::parse).collect();
                numbers.map(AllowList::Also).map_err(|_| Error::BadUri {
                    uri: uri.to_string(),
                    reason: "allow is \"any\", or user numbers with commas between them",
                })
            }
        }
    }

    pub(super) fn allows(&self, peer: Identity) -> bool {
        let own = rustix::process::geteuid().as_raw();
        match self {
            AllowList::Anybody => true,
            AllowList::Also(list) if list.contains(&peer.uid) => true,
            AllowList::Also(_) | AllowList::Own => peer.uid == 0 || (peer.uid == own && peer.uid != NOBODY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_user_and_root_come_in_and_others_by_the_list() {
        let list = |text: &str| AllowList::of(&text.parse().unwrap());
        let peer = |uid| Identity { uid, pid: 1 };
        let own = rustix::process::geteuid().as_raw();
        let default = list("shm:///x").unwrap();
        assert!(default.allows(peer(0)) && !default.allows(peer(54_321)) && !default.allows(peer(NOBODY)));
        assert_eq!(default.allows(peer(own)), own != NOBODY);
        let some = list("shm:///x?allow=54321,7").unwrap();
        assert!(some.allows(peer(54_321)) && some.allows(peer(7)) && !some.allows(peer(8)));
        assert!(list("shm:///x?allow=any").unwrap().allows(peer(NOBODY)));
        assert!(list("shm:///x?allow=root").is_err() && list("shm:///x?allow=1,").is_err());
    }
}
