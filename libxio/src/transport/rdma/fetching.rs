//! Frames that have come, in their order: those whose data is being fetched from the peer's memory by RDMA READ hold up
//! the ones behind them, while all their READs run at the same time.

use super::cm::CmId;
use super::endpoint::{Endpoint, LocalPiece};
use super::lending::{Pieces, Registrations, remote_at};
use super::registration::KeyCache;
use super::sending::name_pieces;
use super::verbs::RegisteredRegion;
use crate::wire::FrameHead;
use crate::{HeaderBytes, Sgl};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io;

/// Frames that may wait here; beyond it no more messages are taken, and the peer's credits end.
const FRAMES_MAX: usize = 1024;

/// Frames that wait for data, and those behind them.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    frames: VecDeque<Waiting>,
    /// Work up to this number is done.
    done: u64,
}

/// A frame that was received whole but for data that is fetched.
#[derive(Debug)]
pub(super) struct Waiting {
    pub head: FrameHead,
    pub header: HeaderBytes,
    /// Where the data lands, or has landed.
    pub data: Sgl,
    fetch: Option<Fetch>,
}

#[derive(Debug)]
struct Fetch {
    /// Where the data lies.
    from: Pieces,
    /// Bytes that READs were posted for.
    posted: usize,
    /// The last of these.
    work: u64,
    /// Memory that the device knows, where it does not know the landing; to be copied.
    bounce: Option<RegisteredRegion>,
    registrations: Registrations,
}

impl Fetching {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= FRAMES_MAX
    }

    /// A frame whose data lies at `from`.
    pub(super) fn fetch(&mut self, head: FrameHead, header: HeaderBytes, data: Sgl, from: Pieces) {
        let fetch =
            Fetch { from, posted: 0, work: u64::MAX, bounce: None, registrations: Registrations::new() };
        self.frames.push_back(Waiting { head, header, data, fetch: Some(fetch) });
    }

    /// A whole frame, behind others.
    pub(super) fn push(&mut self, head: FrameHead, header: HeaderBytes, data: Sgl) {
        self.frames.push_back(Waiting { head, header, data, fetch: None });
    }

    pub(super) fn done(&mut self, upto: u64) {
        self.done = self.done.max(upto);
    }

    /// The next frame that is whole.
    pub(super) fn next_whole(&mut self) -> Option<Waiting> {
        let front = self.frames.front()?;
        if let Some(fetch) = &front.fetch
            && (fetch.posted < front.data.len() || fetch.work > self.done)
        {
            return None;
        }
        let mut whole = self.frames.pop_front()?;
        if let Some(Fetch { bounce: Some(bounce), .. }) = whole.fetch.take() {
            // SAFETY: the READs into it are done, and it is ours alone.
            whole.data.scatter(0, unsafe { bounce.bytes(whole.data.len()) });
        }
        Some(whole)
    }

    /// Posts READs, as many as there is room for, with one doorbell.
    pub(super) fn post(&mut self, id: &CmId, endpoint: &mut Endpoint, keys: &mut KeyCache) -> io::Result<()> {
        for Waiting { data, fetch, .. } in &mut self.frames {
            let Some(fetch) = fetch else { continue };
            if fetch.posted == 0 && fetch.bounce.is_none() {
                fetch.prepare(data, endpoint, keys)?;
            }
            while fetch.posted < data.len() {
                if endpoint.room() == 0 {
                    return endpoint.ring(id);
                }
                let Some((remote, length)) = remote_at(&fetch.from, fetch.posted) else {
                    return Err(io::Error::from_raw_os_error(libc::EPROTO));
                };
                let length = length.min(endpoint.transfer_max);
                let pieces = fetch.name(data, length, endpoint, keys)?;
                fetch.posted += pieces.iter().map(|piece| piece.length).sum::<usize>();
                fetch.work = endpoint.chain_read(&pieces, remote);
            }
        }
        endpoint.ring(id)
    }
}

impl Fetch {
    /// Sees to it that the device knows the landing.
    fn prepare(&mut self, data: &Sgl, endpoint: &Endpoint, keys: &mut KeyCache) -> io::Result<()> {
        let domain = endpoint.domain();
        for piece in data.pieces() {
            if keys.find(piece, domain.registrations()).is_some() {
                continue;
            }
            // SAFETY: the frame holds the memory until the READs are done or the queue pair is gone, and the
            // registrations go before it.
            match unsafe { domain.registrations().once(piece) } {
                Some(registration) => self.registrations.push(registration),
                None => {
                    self.bounce = Some(RegisteredRegion::allocate(domain.protection(), data.len())?);
                    self.registrations.clear();
                    break;
                }
            }
        }
        Ok(())
    }

    /// Pieces of the landing for the next READ of at most so many bytes.
    fn name(
        &self,
        data: &Sgl,
        length: usize,
        endpoint: &Endpoint,
        keys: &mut KeyCache,
    ) -> io::Result<SmallVec<[LocalPiece; 16]>> {
        let mut pieces = SmallVec::new();
        if let Some(bounce) = &self.bounce {
            let length = length.min(data.len() - self.posted);
            // SAFETY: `posted` is inside the memory, which is as long as the data.
            let address = unsafe { bounce.as_ptr().add(self.posted) };
            pieces.push(LocalPiece { address, length, key: bounce.local_key() });
            return Ok(pieces);
        }
        let once = &self.registrations;
        let named = name_pieces(data, self.posted, length, endpoint.read_pieces_max, &mut pieces, |buffer| {
            let known = keys.find(buffer, endpoint.domain().registrations()).map(|keys| keys.local);
            known.or_else(|| once.iter().find(|once| once.covers(buffer)).map(|once| once.local_key()))
        });
        if named > 0 { Ok(pieces) } else { Err(io::Error::from_raw_os_error(libc::EFAULT)) }
    }
}
