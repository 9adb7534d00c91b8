//! Memory that messages are made of: [`Region`]s (mapped once, known to every transport), [`Buffer`]s (owned pieces of
//! memory that move into an operation and come back with its completion), [`Sgl`]s (scatter-gather lists of buffers)
//! and the [`Pool`] that hands buffers out. A [`FileWindow`] is memory of another kind: a part of a file.
//!
//! A buffer is a pointer and a length, not a `&[u8]`: a transport that shares memory with a peer lets the peer write
//! it. [`Buffer::try_as_slice`] gives the slice where nobody else can touch the bytes.

mod budget;
mod buffer;
mod guard;
mod peer;
mod peer_pieces;
mod pinned;
mod pool;
mod region;
mod sgl;
mod sharing;
mod window;

pub(crate) use budget::{Account, Amount, Budget, Purpose, Share};
#[cfg(feature = "rdma")]
pub(crate) use buffer::zeros_memory;
pub use buffer::{Buffer, zeros};
pub(crate) use peer::{PeerHold, PeerMemory};
pub(crate) use peer_pieces::PeerPieces;
pub(crate) use pinned::Pin;
pub use pool::{BUFFER_LEN_MAX, Pool, PoolOptions};
pub(crate) use region::PAGE_BYTES;
pub use region::Region;
#[cfg(feature = "rdma")]
pub(crate) use region::WeakRegion;
#[cfg(feature = "rdma")]
pub(crate) use region::{RegionWatcher, watch_regions};
pub(crate) use sgl::RawEntries;
pub use sgl::{IoVec, SGL_PIECES_MAX, Sgl};
pub use window::FileWindow;
