//! A second queue pair of a link, for one-sided accesses alone: an access that the owner's device refuses ends this one,
//! and the link lives on. It is connected by hand, along the path of the link's own queue pair: both ends know each
//! other's number by [notes](super::notes).
//!
//! The owner's end posts nothing and needs no completions; the other end posts RDMA READs and WRITEs.

use super::endpoint::{LocalPiece, PIECES_MAX, Remote};
use super::notes::End;
use super::verbs::{Device, DeviceLimits, ProtectionDomain, check, last_error};
use crate::sys::random_bytes;
use rdma_sys as sys;
use std::ffi::c_int;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// Work requests on their way at a time.
pub(super) const SIDE_DEPTH: u32 = 64;
/// Numbers of packets and queue pairs have so many bits.
const NUMBER_BITS: u32 = 24;

/// Which end it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its memory is reached.
    Owner,
    /// It reaches the other's memory.
    Requester,
}

/// The queue pair.
pub(super) struct SideQueue {
    raw: NonNull<sys::ibv_qp>,
    role: Role,
    first_packet: u32,
    /// Work requests that may be on their way at a time.
    depth: u32,
    /// Work requests posted or chained that are not known to be done.
    outstanding: u32,
    pieces_max: usize,
    read_pieces_max: usize,
    /// Work that waits for the doorbell, and its pieces.
    chain: Vec<RawRequest>,
    pieces: Vec<sys::ibv_sge>,
    _protection: Arc<ProtectionDomain>,
}

/// A raw work request, which points into the pieces while it is posted.
struct RawRequest {
    request: sys::ibv_send_wr,
    first_piece: usize,
}

// SAFETY: the pointers are set for the length of a post and not used otherwise.
unsafe impl Send for RawRequest {}

impl std::fmt::Debug for SideQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SideQueue { role, outstanding, .. } = self;
        f.debug_struct("SideQueue")
            .field("role", role)
            .field("outstanding", outstanding)
            .finish_non_exhaustive()
    }
}

// SAFETY: verbs are thread-safe, and the pointer is this object's alone.
unsafe impl Send for SideQueue {}

/// Whether a device's queue pairs can be connected by hand: those of iWARP can't.
pub(super) fn is_possible(device: Device) -> bool {
    // SAFETY: the device is open, so its record lives.
    let kind = unsafe { (*(*device.as_ptr()).device).transport_type };
    kind == sys::ibv_transport_type::IBV_TRANSPORT_IB
}

impl SideQueue {
    /// Makes one; its completions come out of `completions`, which outlives it and has room for [`SIDE_DEPTH`].
    pub(super) fn new(
        role: Role,
        protection: &Arc<ProtectionDomain>,
        completions: *mut sys::ibv_cq,
        limits: &DeviceLimits,
    ) -> io::Result<SideQueue> {
        let pieces_max = PIECES_MAX.min(limits.sge_max);
        let (depth, pieces) = match role {
            Role::Owner => (1, 1),
            Role::Requester => (SIDE_DEPTH.min(limits.work_requests_max), pieces_max),
        };
        let mut attributes = sys::ibv_qp_init_attr {
            qp_context: ptr::null_mut(),
            send_cq: completions,
            recv_cq: completions,
            srq: ptr::null_mut(),
            cap: sys::ibv_qp_cap {
                max_send_wr: depth,
                // Nothing is received; soft-RoCE wants a queue all the same.
                max_recv_wr: 1,
                max_send_sge: pieces,
                max_recv_sge: 1,
                max_inline_data: 0,
            },
            qp_type: sys::ibv_qp_type::IBV_QPT_RC,
            sq_sig_all: 0,
        };
        let random: [u8; 4] = random_bytes()?;
        // SAFETY: domain and queue live; the attributes are read and written during the call only.
        let raw = unsafe { sys::ibv_create_qp(protection.as_ptr(), &raw mut attributes) };
        Ok(SideQueue {
            raw: NonNull::new(raw).ok_or_else(last_error)?,
            role,
            first_packet: u32::from_le_bytes(random) >> (32 - NUMBER_BITS),
            depth,
            outstanding: 0,
            pieces_max: pieces_max as usize,
            read_pieces_max: PIECES_MAX.min(limits.sge_read_max) as usize,
            chain: Vec::with_capacity(depth as usize),
            pieces: Vec::with_capacity((depth * pieces) as usize),
            _protection: Arc::clone(protection),
        })
    }

    /// What the other end has to know.
    pub(super) fn end(&self) -> End {
        // SAFETY: the queue pair lives as long as `self`.
        let queue_pair = unsafe { self.raw.as_ref().qp_num };
        End { queue_pair, first_packet: self.first_packet }
    }

    /// Connects it to the other end, along the path of the link's own queue pair.
    ///
    /// # Errors
    /// What the device has against it; then it is of no use.
    pub(super) fn connect(&self, own: *mut sys::ibv_qp, other: End) -> io::Result<()> {
        use sys::ibv_qp_attr_mask as mask;
        let path = mask::IBV_QP_AV
            | mask::IBV_QP_PATH_MTU
            | mask::IBV_QP_PORT
            | mask::IBV_QP_PKEY_INDEX
            | mask::IBV_QP_TIMEOUT
            | mask::IBV_QP_RETRY_CNT
            | mask::IBV_QP_RNR_RETRY
            | mask::IBV_QP_MAX_QP_RD_ATOMIC
            | mask::IBV_QP_MAX_DEST_RD_ATOMIC
            | mask::IBV_QP_MIN_RNR_TIMER;
        // SAFETY: all-zero is a valid value of these plain structs, which the call fills; the link's queue pair lives.
        let mut attributes = unsafe {
            let mut attributes: sys::ibv_qp_attr = std::mem::zeroed();
            let mut initial: sys::ibv_qp_init_attr = std::mem::zeroed();
            check(sys::ibv_query_qp(own, &raw mut attributes, path.0 as c_int, &raw mut initial))?;
            attributes
        };
        attributes.qp_access_flags = match self.role {
            Role::Owner => {
                let flags = sys::ibv_access_flags::IBV_ACCESS_REMOTE_READ
                    | sys::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE;
                flags.0
            }
            Role::Requester => 0,
        };
        attributes.dest_qp_num = other.queue_pair;
        attributes.rq_psn = other.first_packet;
        attributes.sq_psn = self.first_packet;
        let steps = [
            (
                sys::ibv_qp_state::IBV_QPS_INIT,
                mask::IBV_QP_PKEY_INDEX | mask::IBV_QP_PORT | mask::IBV_QP_ACCESS_FLAGS,
            ),
            (
                sys::ibv_qp_state::IBV_QPS_RTR,
                mask::IBV_QP_AV
                    | mask::IBV_QP_PATH_MTU
                    | mask::IBV_QP_DEST_QPN
                    | mask::IBV_QP_RQ_PSN
                    | mask::IBV_QP_MAX_DEST_RD_ATOMIC
                    | mask::IBV_QP_MIN_RNR_TIMER,
            ),
            (
                sys::ibv_qp_state::IBV_QPS_RTS,
                mask::IBV_QP_TIMEOUT
                    | mask::IBV_QP_RETRY_CNT
                    | mask::IBV_QP_RNR_RETRY
                    | mask::IBV_QP_SQ_PSN
                    | mask::IBV_QP_MAX_QP_RD_ATOMIC,
            ),
        ];
        for (state, what) in steps {
            attributes.qp_state = state;
            let what = what | mask::IBV_QP_STATE;
            // SAFETY: the queue pair lives; the attributes are read during the call only.
            check(unsafe { sys::ibv_modify_qp(self.raw.as_ptr(), &raw mut attributes, what.0 as c_int) })?;
        }
        Ok(())
    }

    /// Work requests that may still be chained.
    pub(super) fn room(&self) -> u32 {
        self.depth - self.outstanding
    }

    /// Pieces of memory that one work request may name.
    pub(super) fn pieces_max(&self, write: bool) -> usize {
        if write { self.pieces_max } else { self.read_pieces_max }
    }

    /// Chains an RDMA WRITE from, or READ into, these pieces, which the caller keeps until it is done; the last one of an
    /// operation tells so.
    pub(super) fn chain(&mut self, id: u64, pieces: &[LocalPiece], remote: Remote, write: bool, last: bool) {
        // SAFETY: all-zero is a valid value of this plain struct: no next request, no immediate data.
        let mut request: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
        request.wr_id = id;
        // At most PIECES_MAX.
        request.num_sge = pieces.len() as c_int;
        request.opcode =
            if write { sys::ibv_wr_opcode::IBV_WR_RDMA_WRITE } else { sys::ibv_wr_opcode::IBV_WR_RDMA_READ };
        if last {
            request.send_flags = sys::ibv_send_flags::IBV_SEND_SIGNALED.0;
        }
        request.wr.rdma = sys::rdma_t { remote_addr: remote.address, rkey: remote.key };
        self.chain.push(RawRequest { request, first_piece: self.pieces.len() });
        self.pieces.extend(pieces.iter().map(|piece| sys::ibv_sge {
            addr: piece.address as u64,
            // A piece is shorter than 4 GiB, since lists are.
            length: piece.length as u32,
            lkey: piece.key,
        }));
        self.outstanding += 1;
    }

    /// Takes back what was chained last and is not posted.
    pub(super) fn unchain(&mut self, work: u32) {
        for _ in 0..work {
            if let Some(last) = self.chain.pop() {
                self.pieces.truncate(last.first_piece);
                self.outstanding -= 1;
            }
        }
    }

    /// So many work requests are done.
    pub(super) fn done(&mut self, work: u32) {
        self.outstanding = self.outstanding.saturating_sub(work);
    }

    /// Posts the chain with one doorbell; returns the number of work requests.
    pub(super) fn ring(&mut self) -> io::Result<u64> {
        let count = self.chain.len();
        if count == 0 {
            return Ok(0);
        }
        for at in (0..count).rev() {
            let next = if at + 1 < count { &raw mut self.chain[at + 1].request } else { ptr::null_mut() };
            let list = &raw mut self.pieces[self.chain[at].first_piece];
            let request = &mut self.chain[at].request;
            (request.next, request.sg_list) = (next, list);
        }
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair lives; the chain and its pieces are not moved during the call. The memory that the pieces
        // name is held by the caller of `chain` until the work is done, or this is dropped.
        let posted = check(unsafe {
            sys::ibv_post_send(self.raw.as_ptr(), &raw mut self.chain[0].request, &raw mut bad)
        });
        self.chain.clear();
        self.pieces.clear();
        posted.map(|()| count as u64)
    }
}

impl Drop for SideQueue {
    fn drop(&mut self) {
        // SAFETY: ours alone; afterwards the device does nothing for it any more.
        let result = unsafe { sys::ibv_destroy_qp(self.raw.as_ptr()) };
        if result != 0 {
            tracing::error!(errno = result, "a queue pair can't be destroyed");
        }
    }
}
