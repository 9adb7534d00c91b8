//! An initramfs: a cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

/// Greatest multiple that an archive's length is padded to, in bytes.
const BLOCK_BYTES: usize = 512;

/// An archive under construction.
pub(super) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    pub(super) fn new() -> Archive {
        Archive { bytes: Vec::new(), inode: 0 }
    }

    /// Adds a directory; its parents have to be there.
    pub(super) fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    /// Adds a file.
    pub(super) fn file(&mut self, name: &str, content: &[u8], executable: bool) {
        self.entry(name, if executable { 0o100_755 } else { 0o100_644 }, content);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        let length = self.bytes.len().next_multiple_of(BLOCK_BYTES);
        self.bytes.resize(length, 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let links = 1 + u32::from(mode & 0o040_000 != 0);
        // inode, mode, uid, gid, links, time, size, device (2 + 2 numbers follow), name size, checksum
        let numbers = [
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            u32::try_from(content.len()).expect("the parts of an initramfs are below 4 GiB"),
            0,
            0,
            0,
            0,
            u32::try_from(name.len() + 1).expect("names are short"),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_trailer_ends_it() {
        let mut archive = Archive::new();
        archive.directory("sbin");
        archive.file("sbin/x", b"hello", true);
        let bytes = archive.finish();
        assert!(bytes.len().is_multiple_of(BLOCK_BYTES));
        assert!(bytes.starts_with(b"07070100000001000041ed"));
        // 110 bytes of head, "sbin" and a NUL, padded to 116.
        assert!(bytes[116..].starts_with(b"07070100000002000081ed"));
        assert!(bytes.windows(11).any(|part| part == b"TRAILER!!!\0"));
    }
}
