//! Calls that copy out of lists, or into them, whose pieces may lie in a peer's memory: sends and receives of sockets.
//!
//! Such memory may vanish under the call ([`guard`](super::guard)). It is then as if it were a hole: zeros, and nothing that
//! is kept. The link that it came over ends for it, and no other link does, though the call may be another's.

use super::{Buffer, Sgl};
use smallvec::SmallVec;
use std::io;
use std::sync::Arc;

/// The pieces of some lists that lie in peers' memory: most times none.
#[derive(Debug, Default)]
pub(crate) struct PeerPieces<'a>(SmallVec<[&'a Buffer; 4]>);

impl<'a> PeerPieces<'a> {
    /// The call will copy out of this list, or into it.
    #[inline]
    pub(crate) fn add(&mut self, list: &'a Sgl) {
        for piece in list.pieces() {
            if piece.peer_memory().is_some() {
                self.0.push(piece);
            }
        }
    }

    /// Makes the call. Where the kernel copies, missing memory is EFAULT: then it is looked for, and the call made once more.
    ///
    /// # Errors
    /// The call's own.
    #[inline]
    pub(crate) fn during(&self, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        if self.0.is_empty() { call() } else { self.during_guarded(&mut call) }
    }

    #[inline(never)]
    fn during_guarded(&self, call: &mut dyn FnMut() -> io::Result<usize>) -> io::Result<usize> {
        match guarded(&self.0, call) {
            Err(cause) if cause.raw_os_error() == Some(libc::EFAULT) => {
                self.0.iter().for_each(|piece| piece.look_for_pages());
                guarded(&self.0, call)
            }
            outcome => outcome,
        }
    }
}

/// Makes the call within a touch of the memory of each piece.
fn guarded(pieces: &[&Buffer], call: &mut dyn FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let Some((memory, rest)) =
        pieces.split_first().and_then(|(first, rest)| Some((first.peer_memory()?, rest)))
    else {
        return call();
    };
    let is_same = |piece: &&&Buffer| piece.peer_memory().is_some_and(|other| Arc::ptr_eq(memory, other));
    let same = rest.iter().take_while(is_same).count();
    let mut outcome = Ok(0);
    // What vanished shows at the link that the memory came over.
    let _ = memory.touch(|| outcome = guarded(&rest[same..], call));
    outcome
}
