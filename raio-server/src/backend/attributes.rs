//! A file's attributes as the protocol has them, from statx(2) and the device.

use super::Errno;
use raio::proto::{Attributes, FileKind};
use rustix::fs::{AtFlags, StatxFlags, StatxTimestamp, ioctl_blksszget, makedev, seek, statx};
use std::os::fd::BorrowedFd;

const NANOSECONDS: i64 = 1_000_000_000;

fn time_ns(time: &StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(NANOSECONDS).saturating_add(i64::from(time.tv_nsec))
}

/// Attributes of an open file, be it open for its path only. Limits of I/O are the caller's to add.
pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Attributes, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN;
    let found = statx(fd, "", AtFlags::EMPTY_PATH, wanted).map_err(|cause| cause.raw_os_error())?;
    let mut attributes = Attributes {
        size: found.stx_size,
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        generation: crate::sys::generation(fd).unwrap_or_default(),
        special_device: makedev(found.stx_rdev_major, found.stx_rdev_minor),
        blocks: found.stx_blocks,
        accessed_ns: time_ns(&found.stx_atime),
        modified_ns: time_ns(&found.stx_mtime),
        changed_ns: time_ns(&found.stx_ctime),
        mode: u32::from(found.stx_mode),
        links: found.stx_nlink,
        user: found.stx_uid,
        group: found.stx_gid,
        block_bytes: found.stx_blksize,
        ..Attributes::default()
    };
    if found.stx_mask & StatxFlags::DIOALIGN.bits() != 0 {
        attributes.memory_alignment = found.stx_dio_mem_align;
        attributes.offset_alignment = found.stx_dio_offset_align;
    }
    attributes.logical_block_bytes = attributes.offset_alignment.max(512);
    if attributes.kind() == FileKind::BlockDevice {
        if let Ok(size) = seek(fd, rustix::fs::SeekFrom::End(0)) {
            attributes.size = size;
        }
        if let Ok(bytes) = ioctl_blksszget(fd) {
            attributes.logical_block_bytes = bytes;
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{major, minor};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_stat_says() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(12_345).unwrap();
        let metadata = file.metadata().unwrap();
        let found = of(file.as_fd()).unwrap();
        assert_eq!((found.size, found.inode, found.device), (12_345, metadata.ino(), metadata.dev()));
        assert_eq!(
            (found.mode, found.user, found.blocks),
            (metadata.mode(), metadata.uid(), metadata.blocks())
        );
        assert_eq!(found.modified_ns, metadata.mtime() * NANOSECONDS + metadata.mtime_nsec());
        let (big, small) = (major(found.device), minor(found.device));
        assert_eq!(makedev(big, small), found.device);
    }
}
