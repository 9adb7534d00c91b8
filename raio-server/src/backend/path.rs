//! Names beneath a directory: the kernel resolves them, and refuses whatever would leave it.

use super::Errno;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno as Os;
use std::os::fd::{BorrowedFd, OwnedFd};

/// `..`, absolute links and links of /proc that would leave the export fail with EXDEV or ELOOP; links that stay are
/// followed.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// Tries when a directory on the way is renamed meanwhile.
const RACES_MAX: u32 = 16;

/// Opens a name beneath a directory.
pub(super) fn open(root: BorrowedFd<'_>, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let mut tries = 0;
    loop {
        match openat2(root, name, flags | OFlags::CLOEXEC, mode, BENEATH) {
            Ok(fd) => return Ok(fd),
            Err(Os::AGAIN | Os::INTR) if tries < RACES_MAX => tries += 1,
            Err(errno) => return Err(errno.raw_os_error()),
        }
    }
}

/// A place for a name: its directory, opened, and the last component. For calls that change names, which have no flag
/// of their own for staying beneath.
pub(super) fn open_parent<'a>(root: BorrowedFd<'_>, name: &'a [u8]) -> Result<(OwnedFd, &'a [u8]), Errno> {
    let trimmed = name.iter().rposition(|byte| *byte != b'/').map_or(&name[..0], |last| &name[..=last]);
    let (parent, last) = match trimmed.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&trimmed[..slash], &trimmed[slash + 1..]),
        None => (&b"."[..], trimmed),
    };
    match last {
        // The export itself.
        b"." if parent == b"." => return Err(libc::EBUSY),
        b"" | b"." | b".." => return Err(libc::EINVAL),
        _ => {}
    }
    let directory = open(root, parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    Ok((directory, last))
}
