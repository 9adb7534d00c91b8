//! The extension between head and header: where a frame's data lies in the client's memory.
//!
//! A request says where its data is, and where the response's data shall land; both are lists of pieces of regions that
//! the client has shared. A remote read says where its data shall land, a remote write where it is. A response says that
//! its data is in its place.

use super::{FrameKind, Violation};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most pieces in one extension; a list with more travels as bytes.
pub const PLACED_PIECES_MAX: usize = 64;
/// Longest extension in bytes.
pub const EXTENSION_BYTES_MAX: u16 =
    (size_of::<StartBytes>() + PLACED_PIECES_MAX * size_of::<PieceBytes>()) as u16;

/// A piece of a shared region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedPiece {
    /// The region's number on this link.
    pub region: u32,
    /// Length in bytes.
    pub length: u32,
    /// Offset in the region in bytes.
    pub offset: u64,
}

/// The extension's beginning.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct StartBytes {
    data_pieces: u8,
    landing_pieces: u8,
    placed: u8,
    reserved: [u8; 5],
}

/// A piece as bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct PieceBytes {
    region: U32,
    length: U32,
    offset: U64,
}

const _: () = assert!(size_of::<StartBytes>() == 8 && size_of::<PieceBytes>() == 16);

/// A decoded extension, over the bytes that it was decoded from.
#[derive(Debug, Clone, Copy)]
pub struct Extension<'a> {
    data: &'a [u8],
    landing: &'a [u8],
}

impl<'a> Extension<'a> {
    /// Decodes and validates an extension of a request, a one-sided operation or a response.
    ///
    /// # Errors
    /// [`Violation::BadPlacement`].
    #[inline]
    pub fn decode(kind: FrameKind, bytes: &'a [u8]) -> Result<Extension<'a>, Violation> {
        let wrong = |why| Err(Violation::BadPlacement(why));
        let Ok((start, pieces)) = StartBytes::read_from_prefix(bytes) else {
            return wrong("the extension is too short");
        };
        if start.reserved != [0; 5] {
            return wrong("reserved bytes are not 0");
        }
        let data_bytes = usize::from(start.data_pieces) * size_of::<PieceBytes>();
        let landing_bytes = usize::from(start.landing_pieces) * size_of::<PieceBytes>();
        if pieces.len() != data_bytes + landing_bytes {
            return wrong("the extension is not as long as its pieces");
        }
        let none = pieces.is_empty();
        match (kind, start.placed) {
            (FrameKind::Response, 1) if none => {}
            (FrameKind::Request, 0) if !none => {}
            (FrameKind::RemoteRead, 0) if !none && data_bytes == 0 => {}
            (FrameKind::RemoteWrite, 0) if !none && landing_bytes == 0 => {}
            (FrameKind::Response, _) => return wrong("a response says that it is placed, and nothing else"),
            _ => return wrong("a request says where something lies, and nothing else"),
        }
        let (data, landing) = pieces.split_at(data_bytes);
        Ok(Extension { data, landing })
    }

    /// Whether the frame's data does not travel with it.
    #[must_use]
    #[inline]
    pub fn has_data(&self, kind: FrameKind) -> bool {
        kind == FrameKind::Response || !self.data.is_empty()
    }

    /// Where the data of a request or a remote write lies; empty where it follows in the frame.
    #[inline]
    pub fn data(&self) -> impl ExactSizeIterator<Item = PlacedPiece> + use<'a> {
        decoded(self.data)
    }

    /// Where the response's data shall land; empty where it shall come in the frame.
    #[inline]
    pub fn landing(&self) -> impl ExactSizeIterator<Item = PlacedPiece> + use<'a> {
        decoded(self.landing)
    }
}

#[inline]
fn decoded(bytes: &[u8]) -> impl ExactSizeIterator<Item = PlacedPiece> + use<'_> {
    // `decode` has seen to it that these are whole pieces.
    let pieces = <[PieceBytes]>::ref_from_bytes(bytes).unwrap_or_default();
    pieces.iter().map(|piece| PlacedPiece {
        region: piece.region.get(),
        length: piece.length.get(),
        offset: piece.offset.get(),
    })
}

/// Writes an extension: the data's pieces first, then the landing's.
#[derive(Debug)]
pub struct ExtensionWriter {
    bytes: ExtensionBytes,
}

/// Bytes of an extension that are kept inline: one piece each for data and landing.
const INLINE_BYTES: usize = size_of::<StartBytes>() + 2 * size_of::<PieceBytes>();

/// An extension's bytes.
#[derive(Clone)]
pub struct ExtensionBytes {
    length: u16,
    inline: [u8; INLINE_BYTES],
    /// All of them, where they are more.
    long: Option<Box<[u8; EXTENSION_BYTES_MAX as usize]>>,
}

impl ExtensionBytes {
    /// None.
    #[must_use]
    #[inline]
    pub const fn new() -> ExtensionBytes {
        ExtensionBytes { length: 0, inline: [0; INLINE_BYTES], long: None }
    }

    /// Appends a piece; there are no more than fit the longest extension.
    #[inline]
    fn push(&mut self, piece: &PieceBytes) {
        let start = usize::from(self.length);
        let end = start + size_of::<PieceBytes>();
        let target = match &mut self.long {
            None if end <= INLINE_BYTES => &mut self.inline[..],
            None => self.make_long(),
            Some(long) => &mut long[..],
        };
        target[start..end].copy_from_slice(piece.as_bytes());
        // At most `EXTENSION_BYTES_MAX`.
        self.length = end as u16;
    }

    #[cold]
    fn make_long(&mut self) -> &mut [u8] {
        let mut long = Box::new([0; EXTENSION_BYTES_MAX as usize]);
        long[..INLINE_BYTES].copy_from_slice(&self.inline);
        &mut self.long.insert(long)[..]
    }

    fn truncate(&mut self, length: usize) {
        if length < usize::from(self.length) {
            self.length = length as u16;
        }
    }
}

impl Default for ExtensionBytes {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ExtensionBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl std::ops::Deref for ExtensionBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.long {
            None => &self.inline,
            Some(long) => &long[..],
        };
        &all[..usize::from(self.length)]
    }
}

impl std::ops::DerefMut for ExtensionBytes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let all: &mut [u8] = match &mut self.long {
            None => &mut self.inline,
            Some(long) => &mut long[..],
        };
        &mut all[..usize::from(self.length)]
    }
}

impl ExtensionWriter {
    /// An extension without pieces.
    #[must_use]
    #[inline]
    pub fn new() -> ExtensionWriter {
        let length = size_of::<StartBytes>() as u16;
        ExtensionWriter { bytes: ExtensionBytes { length, ..ExtensionBytes::new() } }
    }

    /// The extension of a response whose data is in its place.
    #[must_use]
    #[inline]
    pub fn placed() -> ExtensionBytes {
        let mut writer = ExtensionWriter::new();
        writer.bytes.inline[2] = 1;
        writer.bytes
    }

    /// Adds a piece of data; false where there is no room for it.
    #[inline]
    pub fn push_data(&mut self, piece: PlacedPiece) -> bool {
        debug_assert_eq!(self.bytes[1], 0, "data comes before the landing");
        self.push(0, piece)
    }

    /// Adds a piece of the landing; false where there is no room for it.
    #[inline]
    pub fn push_landing(&mut self, piece: PlacedPiece) -> bool {
        self.push(1, piece)
    }

    #[inline]
    fn push(&mut self, count: usize, piece: PlacedPiece) -> bool {
        if usize::from(self.bytes[0]) + usize::from(self.bytes[1]) >= PLACED_PIECES_MAX {
            return false;
        }
        let PlacedPiece { region, length, offset } = piece;
        let piece = PieceBytes { region: region.into(), length: length.into(), offset: offset.into() };
        self.bytes.push(&piece);
        self.bytes[count] += 1;
        true
    }

    /// Takes all pieces back.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.truncate(size_of::<StartBytes>());
        self.bytes.fill(0);
    }

    /// Takes the pieces of the landing back.
    #[inline]
    pub fn clear_landing(&mut self) {
        let landing = usize::from(std::mem::take(&mut self.bytes[1]));
        self.bytes.truncate(self.bytes.len() - landing * size_of::<PieceBytes>());
    }

    /// The bytes; none where there is nothing to say.
    #[must_use]
    #[inline]
    pub fn finish(self) -> ExtensionBytes {
        if self.bytes.len() == size_of::<StartBytes>() { ExtensionBytes::new() } else { self.bytes }
    }
}

impl Default for ExtensionWriter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: PlacedPiece = PlacedPiece { region: 1, length: 4096, offset: 0x1_0000_0000 };
    const LANDING: PlacedPiece = PlacedPiece { region: 0x0102, length: 0x0304, offset: 0x05_0000 };

    #[rustfmt::skip]
    const GOLDEN: [u8; 40] = [
        0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x01, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
        0x02, 0x01, 0x00, 0x00, 0x04, 0x03, 0x00, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn golden_bytes() {
        let mut writer = ExtensionWriter::new();
        assert!(writer.push_data(DATA) && writer.push_landing(LANDING));
        let bytes = writer.finish();
        assert_eq!(bytes[..], GOLDEN);
        assert!(bytes.long.is_none());
        let found = Extension::decode(FrameKind::Request, &bytes).unwrap();
        assert_eq!(found.data().collect::<Vec<_>>(), [DATA]);
        assert_eq!(found.landing().collect::<Vec<_>>(), [LANDING]);
        assert_eq!(ExtensionWriter::placed()[..], [0, 0, 1, 0, 0, 0, 0, 0]);
        assert!(Extension::decode(FrameKind::Response, &ExtensionWriter::placed()).is_ok());
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let refused = |kind, bytes: &[u8]| {
            assert!(matches!(Extension::decode(kind, bytes), Err(Violation::BadPlacement(_))), "{bytes:?}");
        };
        for length in 0..GOLDEN.len() {
            refused(FrameKind::Request, &GOLDEN[..length]);
        }
        refused(FrameKind::Response, &GOLDEN);
        for at in 0..8 {
            let mut bytes = GOLDEN;
            bytes[at] = 0x80;
            refused(FrameKind::Request, &bytes);
            let mut bytes = ExtensionWriter::placed();
            bytes[at] = 0x80;
            refused(FrameKind::Response, &bytes);
        }
        refused(FrameKind::Request, &ExtensionWriter::placed());
        refused(FrameKind::Request, &[0; 8]);
        refused(FrameKind::Response, &[0; 8]);
    }

    #[test]
    fn one_sided_operations_have_one_list() {
        let only = |push: fn(&mut ExtensionWriter, PlacedPiece) -> bool| {
            let mut writer = ExtensionWriter::new();
            assert!(push(&mut writer, DATA));
            writer.finish()
        };
        let (data, landing) = (only(ExtensionWriter::push_data), only(ExtensionWriter::push_landing));
        assert!(Extension::decode(FrameKind::RemoteWrite, &data).unwrap().has_data(FrameKind::RemoteWrite));
        assert!(!Extension::decode(FrameKind::RemoteRead, &landing).unwrap().has_data(FrameKind::RemoteRead));
        for (kind, bytes) in [
            (FrameKind::RemoteWrite, &landing[..]),
            (FrameKind::RemoteRead, &data),
            (FrameKind::RemoteRead, &GOLDEN),
            (FrameKind::RemoteWrite, &GOLDEN),
            (FrameKind::RemoteRead, &ExtensionWriter::placed()),
            (FrameKind::RemoteWrite, &ExtensionWriter::placed()),
        ] {
            assert!(Extension::decode(kind, bytes).is_err(), "{kind:?} {bytes:?}");
        }
    }

    #[test]
    fn the_number_of_pieces_is_bounded_and_they_can_be_taken_back() {
        let mut writer = ExtensionWriter::new();
        assert!((0..PLACED_PIECES_MAX).all(|_| writer.push_data(DATA)));
        assert!(!writer.push_data(DATA) && !writer.push_landing(LANDING));
        assert_eq!(writer.bytes.len(), usize::from(EXTENSION_BYTES_MAX));
        writer.clear();
        assert!(writer.push_data(DATA) && writer.push_landing(LANDING) && writer.push_landing(LANDING));
        writer.clear_landing();
        let bytes = writer.finish();
        let found = Extension::decode(FrameKind::Request, &bytes).unwrap();
        assert_eq!((found.data().len(), found.landing().len()), (1, 0));
        let mut writer = ExtensionWriter::new();
        writer.push_data(DATA);
        writer.clear();
        assert!(writer.finish().is_empty());
    }
}
