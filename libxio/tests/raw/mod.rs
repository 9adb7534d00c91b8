//! One end of a shared-memory link made by hand, for tests of what a broken or hostile peer does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "every test file uses its own part")]

use libxio::wire::{
    EXTENSION_BYTES_MAX, FEATURE_PLACEMENT, FRAME_HEAD_BYTES, FrameFlags, FrameHead, FrameKind, FrameLimits,
    Goodbye, Hello, Limits, LoopKind, SessionId, VERSION, VERSION_MIN,
};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const LONG: Duration = Duration::from_secs(30);
/// Bytes of each ring that these ends make.
pub const RING: usize = 64 << 10;
/// Length of the memfd of the rings.
pub const RINGS: usize = 4096 + 2 * RING;

pub const ATTACH: u8 = 1;
pub const REGION: u8 = 2;
pub const WITHDRAW: u8 = 3;
pub const DOORBELL: u8 = 4;
pub const LIMITS: u8 = 6;
pub const UNMAPPED: u8 = 7;

/// Seals that a peer has to have.
pub fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

pub fn memfd(length: usize, seals: SealFlags, flags: MemfdFlags) -> OwnedFd {
    let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = rustix::fs::memfd_create("peer", flags).unwrap();
    rustix::fs::ftruncate(&memfd, length as u64).unwrap();
    rustix::fs::fcntl_add_seals(&memfd, seals).unwrap();
    memfd
}

/// Length of [`memory_without_pages`].
pub const HUGE: usize = 2 << 20;

/// Huge pages that nobody has: a touch would be SIGBUS. `None` where the kernel knows none, or has some.
pub fn memory_without_pages() -> Option<OwnedFd> {
    let Ok(memfd) = rustix::fs::memfd_create(
        "huge",
        MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
    ) else {
        println!("this kernel has no huge pages");
        return None;
    };
    let free = |pool: &str| {
        let text = std::fs::read_to_string(format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{pool}"));
        text.ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    if free("free_hugepages") + free("nr_overcommit_hugepages") > 0 {
        println!("this machine has huge pages to give");
        return None;
    }
    rustix::fs::ftruncate(&memfd, HUGE as u64).unwrap();
    rustix::fs::fcntl_add_seals(&memfd, seals()).unwrap();
    // It can be mapped; only a touch would find out.
    {
        use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
        let (flags, protection) =
            (MapFlags::SHARED | MapFlags::NORESERVE, ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a fresh mapping, which nobody touches.
        unsafe {
            let address = mmap(std::ptr::null_mut(), HUGE, protection, flags, &memfd, 0).unwrap();
            munmap(address, HUGE).unwrap();
        }
    }
    Some(memfd)
}

/// Memory that the other side maps too.
pub struct Shared {
    pub memfd: OwnedFd,
    pointer: *mut u8,
    pub length: usize,
}

// SAFETY: it is accessed through raw copies and atomics only.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(length: usize) -> Shared {
        Shared::map(memfd(length, seals(), MemfdFlags::empty()), length)
    }

    pub fn map(memfd: OwnedFd, length: usize) -> Shared {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping touches nothing that exists.
        let pointer =
            unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, &memfd, 0) }.unwrap();
        Shared { memfd, pointer: pointer.cast(), length }
    }

    pub fn word(&self, place: usize) -> &AtomicU64 {
        assert!(place + 8 <= self.length);
        // SAFETY: inside the mapping, aligned, and any bytes are a u64.
        unsafe { AtomicU64::from_ptr(self.pointer.add(place).cast()) }
    }

    pub fn write(&self, place: usize, bytes: &[u8]) {
        assert!(place + bytes.len() <= self.length);
        // SAFETY: inside the mapping; the other process may touch it, these are raw bytes.
        unsafe { std::ptr::copy(bytes.as_ptr(), self.pointer.add(place), bytes.len()) }
    }

    pub fn read(&self, place: usize, length: usize) -> Vec<u8> {
        assert!(place + length <= self.length);
        let mut bytes = vec![0; length];
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy(self.pointer.add(place), bytes.as_mut_ptr(), length) };
        bytes
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody uses it any more.
        let _ = unsafe { rustix::mm::munmap(self.pointer.cast(), self.length) };
    }
}

/// A message of the socket.
pub fn message(kind: u8, number: u32, length: u64, rings: (u32, u32)) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = kind;
    bytes[1] = 1;
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..16].copy_from_slice(&length.to_le_bytes());
    bytes[16..20].copy_from_slice(&rings.0.to_le_bytes());
    bytes[20..24].copy_from_slice(&rings.1.to_le_bytes());
    bytes
}

pub fn attach() -> [u8; 32] {
    message(ATTACH, 0, RINGS as u64, (RING as u32, RING as u32))
}

/// Sends a message with descriptors; false when the other side has closed.
pub fn tell(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// The next message, and a descriptor that came with it; `None` at the end.
pub fn hear(socket: &OwnedFd) -> Option<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut receive = || {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    };
    let mut received = receive();
    if received.as_ref().err() == Some(&rustix::io::Errno::CONNRESET) {
        // The other side has closed without reading all; what it said before comes after that news.
        received = receive();
    }
    // A reset is an end; silence is none.
    assert!(
        received.as_ref().err() != Some(&rustix::io::Errno::AGAIN),
        "the other side neither speaks nor closes"
    );
    let count = received.map_or(0, |received| received.bytes);
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    (count > 0).then(|| (bytes[..count].to_vec(), descriptor))
}

pub fn socket() -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(LONG))
        .unwrap();
    socket
}

pub fn connect(path: &str) -> OwnedFd {
    let socket = socket();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

/// An end with rings. A client's out-ring is the upward one.
pub struct End {
    pub socket: OwnedFd,
    pub rings: Shared,
    client: bool,
    head: u64,
    tail: u64,
}

impl End {
    /// A client that has handed its rings over.
    pub fn client(path: &str) -> End {
        let socket = connect(path);
        let rings = Shared::new(RINGS);
        assert!(tell(&socket, &attach(), &[rings.memfd.as_fd()]));
        End { socket, rings, client: true, head: 0, tail: 0 }
    }

    /// A server's end of a connection that was accepted. The client's rings have another size.
    pub fn server(socket: OwnedFd) -> End {
        let (message, memfd) = hear(&socket).unwrap();
        assert_eq!(message[0], ATTACH);
        let length = u64::from_le_bytes(message[8..16].try_into().unwrap()) as usize;
        End { socket, rings: Shared::map(memfd.unwrap(), length), client: false, head: 0, tail: 0 }
    }

    fn ring_bytes(&self) -> usize {
        (self.rings.length - 4096) / 2
    }

    /// (out head, out tail, out bytes, in head, in tail, in bytes)
    fn places(&self) -> [usize; 6] {
        let (up, down) = ([0, 128, 4096], [256, 384, 4096 + self.ring_bytes()]);
        let (out, back) = if self.client { (up, down) } else { (down, up) };
        [out[0], out[1], out[2], back[0], back[1], back[2]]
    }

    /// Writes bytes to the out-ring and rings the bell; waits for room.
    pub fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(self.ring_bytes() / 2) {
            self.put(part);
            tell(&self.socket, &message(DOORBELL, 0, 0, (0, 0)), &[]);
        }
    }

    /// Writes bytes, half a ring at most, to the out-ring and rings no bell; waits for room.
    pub fn put(&mut self, bytes: &[u8]) {
        let [head, tail, start, ..] = self.places();
        let capacity = self.ring_bytes();
        let begun = Instant::now();
        while self.head.wrapping_sub(self.rings.word(tail).load(Ordering::Acquire))
            > (capacity - bytes.len()) as u64
        {
            assert!(begun.elapsed() < LONG, "no room");
            std::thread::yield_now();
        }
        for (number, byte) in bytes.iter().enumerate() {
            let at = (self.head as usize + number) % capacity;
            self.rings.write(start + at, &[*byte]);
        }
        self.head += bytes.len() as u64;
        self.rings.word(head).store(self.head, Ordering::SeqCst);
    }

    /// Writes bytes to the out-ring without a look at what there is room for.
    pub fn write_blindly(&self, at: &mut u64, bytes: &[u8]) {
        let [head, _, start, ..] = self.places();
        let capacity = self.ring_bytes();
        let begin = self.head + *at;
        for (number, byte) in bytes.iter().enumerate() {
            self.rings.write(start + (begin as usize + number) % capacity, &[*byte]);
        }
        *at += bytes.len() as u64;
        self.rings.word(head).store(self.head + *at, Ordering::SeqCst);
        tell(&self.socket, &message(DOORBELL, 0, 0, (0, 0)), &[]);
    }

    /// Whether the other side has closed its socket.
    pub fn is_closed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut watched = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let _ = poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        watched[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)
    }

    /// Reads so many bytes; `None` where the other side closes first.
    pub fn read(&mut self, length: usize) -> Option<Vec<u8>> {
        let [.., head, tail, start] = self.places();
        let capacity = self.ring_bytes();
        let begun = Instant::now();
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let filled = self.rings.word(head).load(Ordering::Acquire).wrapping_sub(self.tail);
            if filled == 0 || filled > capacity as u64 {
                if self.is_closed() && self.rings.word(head).load(Ordering::Acquire) == self.tail {
                    return None;
                }
                assert!(begun.elapsed() < LONG, "nothing comes");
                std::thread::yield_now();
                continue;
            }
            bytes.push(self.rings.read(start + self.tail as usize % capacity, 1)[0]);
            self.tail += 1;
            self.rings.word(tail).store(self.tail, Ordering::Release);
        }
        Some(bytes)
    }

    pub fn read_frame(&mut self, limits: &FrameLimits) -> Option<(FrameHead, Vec<u8>)> {
        let head = FrameHead::decode(&self.read(FRAME_HEAD_BYTES)?.try_into().unwrap(), limits).unwrap();
        self.read(usize::from(head.extension_length))?;
        let header = self.read(head.header_length as usize)?;
        let in_frame = if head.extension_length > 0 { 0 } else { head.data_length };
        self.read(in_frame as usize)?;
        Some((head, header))
    }

    /// Says hello and waits for the welcome.
    pub fn greet(&mut self) {
        self.write(&frame(FrameHead::new(FrameKind::Hello), &[], &hello().encode()));
        let (head, _) = self.read_frame(&FrameLimits::handshake()).expect("a welcome");
        assert_eq!(head.kind, FrameKind::Welcome);
    }

    pub fn hand_over(&self, number: u32, memory: &Shared) {
        self.hand_over_as(number, memory.length, memory.memfd.as_fd());
    }

    pub fn hand_over_as(&self, number: u32, length: usize, memfd: BorrowedFd<'_>) {
        tell(&self.socket, &message(REGION, number, length as u64, (0, 0)), &[memfd]);
    }
}

/// The other side closes its socket.
pub fn cut_off(socket: &OwnedFd) {
    while hear(socket).is_some() {}
}

/// The server has found that memory of the guest has no pages, and cuts it off; an answer may come first.
pub fn vanished(mut guest: End) {
    const VANISHED: u32 = 27;
    let mut code = None;
    while let Some((head, body)) = guest.read_frame(&limits()) {
        if head.kind == FrameKind::Goodbye {
            code = Some(Goodbye::decode(&body).unwrap().code);
        }
    }
    cut_off(&guest.socket);
    assert!(code.is_none_or(|code| code == VANISHED), "cut off for another reason: {code:?}");
}

pub fn hello() -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        features: FEATURE_PLACEMENT,
        loop_kind: LoopKind::Caller,
        session: SessionId::default(),
        session_key: [0; 16],
        connection: 0,
        limits: own_limits(),
        resource: "/x".into(),
        private_data: Vec::new(),
    }
}

pub fn own_limits() -> Limits {
    Limits {
        slots: 16,
        peer_slots: 16,
        header_bytes_max: 4096,
        data_bytes_max: 1 << 20,
        window_bytes: 1 << 20,
        replay_bytes_max: 256,
        keepalive_ms: 0,
        immediate_bytes_max: 1 << 20,
        one_way_max: 16,
    }
}

pub fn limits() -> FrameLimits {
    FrameLimits {
        header_bytes_max: 8448,
        data_bytes_max: 4 << 20,
        immediate_bytes_max: 4 << 20,
        slots: 16,
        own_slots: 16,
        crc: false,
        extension_bytes_max: EXTENSION_BYTES_MAX,
    }
}

/// A frame without data in it.
pub fn frame(mut head: FrameHead, extension: &[u8], header: &[u8]) -> Vec<u8> {
    head.header_length = header.len() as u32;
    head.extension_length = extension.len() as u16;
    let follows = [extension, header].concat();
    [&head.encode(&follows, false)[..], &follows].concat()
}

/// An extension with pieces of data and landing: (region, length, offset).
pub fn extension(data: &[(u32, u32, u64)], landing: &[(u32, u32, u64)]) -> Vec<u8> {
    let mut extension = vec![data.len() as u8, landing.len() as u8, 0, 0, 0, 0, 0, 0];
    for (region, length, offset) in data.iter().chain(landing) {
        extension.extend(region.to_le_bytes());
        extension.extend(length.to_le_bytes());
        extension.extend(offset.to_le_bytes());
    }
    extension
}

/// A one-sided operation on memory that nobody has exposed, with pieces of data and landing.
pub fn one_sided(
    kind: FrameKind,
    lengths: (u32, u32),
    data: &[(u32, u32, u64)],
    landing: &[(u32, u32, u64)],
) -> Vec<u8> {
    let (data_length, room) = lengths;
    let head = FrameHead { sequence: 1, data_length, room, ..FrameHead::new(kind) };
    frame(head, &extension(data, landing), &[0; 32])
}

/// A request with pieces of data and landing: (region, length, offset).
pub fn request(
    slot: u16,
    sequence: u32,
    lengths: (u32, u32),
    data: &[(u32, u32, u64)],
    landing: &[(u32, u32, u64)],
) -> Vec<u8> {
    let extension = extension(data, landing);
    let head = FrameHead {
        slot,
        sequence,
        flags: FrameFlags::IDEMPOTENT,
        data_length: lengths.0,
        room: lengths.1,
        ..FrameHead::new(FrameKind::Request)
    };
    frame(head, &extension, b"question")
}
