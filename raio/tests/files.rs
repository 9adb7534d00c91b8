//! Blocking files and clients against a real server: what works, and what mistakes are told.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::proto::FileKind;
use raio::{Client, ClientOptions, Error, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use support::{Server, minute, noise};

fn errno<T: std::fmt::Debug>(result: raio::Result<T>) -> i32 {
    result.unwrap_err().errno()
}

#[test]
fn what_is_written_is_read_back() {
    let _watchdog = minute();
    let server = Server::start();
    let file = File::create(&server.uri("/data/new")).unwrap();
    let bytes = noise(9_000_001);
    file.write_all_at(&bytes, 5).unwrap();
    file.flush().unwrap();
    file.flush_data().unwrap();
    let mut back = vec![0; bytes.len() + 100];
    assert_eq!(file.read_at(&mut back, 5).unwrap(), bytes.len(), "short at the end of the file");
    assert!(back[..bytes.len()] == bytes[..]);
    assert_eq!(file.read_at(&mut back, 5 + bytes.len() as u64).unwrap(), 0, "nothing at the end");
    assert_eq!(file.read_at(&mut back, 1 << 40).unwrap(), 0, "nothing beyond");
    assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
    assert_eq!(file.write_at(&[], 0).unwrap(), 0);
    assert_eq!(file.stat().unwrap().size, 5 + bytes.len() as u64);
    file.close().unwrap();
    let on_disk = std::fs::read(server.path("new")).unwrap();
    assert!(on_disk[..5] == [0; 5] && on_disk[5..] == bytes[..]);
}

#[test]
fn every_length_and_offset_around_the_edges_of_blocks() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = server.file("edges", 70_000);
    let file = File::open(&server.uri("/data/edges")).unwrap();
    for offset in [0, 1, 511, 512, 4095, 4096, 65_535, 69_999, 70_000] {
        for length in [1, 511, 512, 513, 4096, 65_537, 70_000] {
            let mut buffer = vec![0xee; length];
            let expected = &bytes[offset..(offset + length).min(bytes.len())];
            let read = file.read_at(&mut buffer, offset as u64).unwrap();
            assert_eq!((read, &buffer[..read]), (expected.len(), expected), "{length} at {offset}");
            assert!(buffer[read..].iter().all(|byte| *byte == 0xee), "{length} at {offset}: nothing beyond");
        }
    }
}

#[test]
fn vectors_are_gathered_and_scattered() {
    let _watchdog = minute();
    let server = Server::start();
    let file = File::create(&server.uri("/data/vectors")).unwrap();
    let bytes = noise(3_000_000);
    let (one, rest) = bytes.split_at(7);
    let (two, three) = rest.split_at(1_500_000);
    let slices = [IoSlice::new(one), IoSlice::new(&[]), IoSlice::new(two), IoSlice::new(three)];
    assert_eq!(file.write_vectored_at(&slices, 100).unwrap(), bytes.len());
    let mut many: Vec<Vec<u8>> = vec![vec![0; 1000]; 3000];
    let mut slices: Vec<_> = many.iter_mut().map(|part| IoSliceMut::new(part)).collect();
    assert_eq!(file.read_vectored_at(&mut slices, 100).unwrap(), bytes.len());
    assert!(many.concat() == bytes);
}

#[test]
fn size_holes_and_durable_writes() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = server.file("holes", 64 << 10);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(&server.uri("/data/holes")).unwrap();
    file.discard(4096, 8192).unwrap();
    let mut back = vec![1; bytes.len()];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back[..4096] == bytes[..4096] && back[12_288..] == bytes[12_288..]);
    assert!(back[4096..12_288].iter().all(|byte| *byte == 0));
    file.truncate(10).unwrap();
    assert_eq!(std::fs::metadata(server.path("holes")).unwrap().len(), 10);
    file.truncate(20).unwrap();
    assert_eq!(file.write_durable_at(b"x", 19).unwrap(), 1);
    let end = file.read_exact_at(&mut [0; 30], 0).unwrap_err();
    assert!(matches!(end, Error::UnexpectedEnd { offset: 20, .. }), "{end}");
    assert_eq!(errno(file.discard(0, 0)), libc::EINVAL);
}

#[test]
fn attributes_tell_identity_and_limits() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 12_345);
    let file = File::open(&server.uri("/data/some")).unwrap();
    let attributes = *file.attributes();
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(server.path("some")).unwrap();
    assert_eq!((attributes.size, attributes.kind()), (12_345, FileKind::File));
    assert_eq!((attributes.inode, attributes.mode), (metadata.ino(), metadata.mode()));
    assert_eq!(attributes.modified_ns, metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec());
    assert!(attributes.io_bytes_max >= 1 << 20 && attributes.preferred_io_bytes > 0);
    assert_eq!(file.client().stat("/data/some").unwrap().inode, metadata.ino());
    let null = File::open(&server.uri("/dev/null")).unwrap();
    assert_eq!(null.attributes().size, 1 << 32, "what readers of the null device rely on");
}

#[test]
fn names_are_listed_changed_and_removed() {
    let _watchdog = minute();
    let server = Server::start();
    let client = Client::connect(&server.uri("/")).unwrap();
    for number in 0..3000 {
        std::fs::write(server.path(&format!("a-rather-long-name-for-a-file-{number:05}")), b"x").unwrap();
    }
    std::fs::create_dir(server.path("sub")).unwrap();
    let mut entries = client.list("/data").unwrap();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(entries.len(), 3001, "more than fits one answer");
    assert_eq!((entries[3000].name.as_slice(), entries[3000].kind()), (&b"sub"[..], FileKind::Directory));
    assert_eq!((entries[0].size, entries[0].kind()), (1, FileKind::File));
    let first = "/data/a-rather-long-name-for-a-file-00000";
    client.rename(first, "/data/sub/short", true).unwrap();
    assert_eq!(client.list("/data/sub").unwrap()[0].name, b"short");
    let second = "/data/a-rather-long-name-for-a-file-00001";
    assert_eq!(errno(client.rename(second, "/data/sub/short", true)), libc::EEXIST);
    client.rename(second, "/data/sub/short", false).unwrap();
    assert_eq!(errno(client.remove_directory("/data/sub")), libc::ENOTEMPTY);
    client.unlink("/data/sub/short").unwrap();
    client.remove_directory("/data/sub").unwrap();
    assert_eq!(errno(client.stat("/data/sub")), libc::ENOENT);
    assert_eq!(errno(client.list("/data/none")), libc::ENOENT);
}

#[test]
fn a_server_tells_what_it_is() {
    let _watchdog = minute();
    let server = Server::start();
    let client = Client::connect(&server.uri("/")).unwrap();
    let info = client.info().unwrap();
    assert_eq!(info.name, "raio-server");
    let paths: Vec<_> =
        info.exports.iter().map(|export| String::from_utf8_lossy(&export.path).into_owned()).collect();
    for expected in ["/data", "/ro", "/memory", "/null"] {
        assert!(paths.iter().any(|path| path == expected), "{expected} is missing in {paths:?}");
    }
    assert!(info.exports.iter().any(|export| export.path == b"/ro" && export.read_only));
    assert_eq!(info.connections, 1);
    assert!(client.ping().unwrap().as_nanos() > 0);
}

#[test]
fn mistakes_get_the_errno_that_says_it() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 100);
    std::fs::create_dir(server.path("sub")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", server.path("out")).unwrap();
    let client = Client::connect(&server.uri("/")).unwrap();
    let mut read = OpenOptions::new();
    read.read(true);
    let mut write = OpenOptions::new();
    write.write(true);
    for (options, path, expected) in [
        (&read, "/data/none", &[libc::ENOENT][..]),
        (&read, "/nowhere/some", &[libc::ENOENT]),
        (&read, "/data/sub", &[libc::EISDIR]),
        (&write, "/data/sub", &[libc::EISDIR]),
        (&write, "/ro/some", &[libc::EROFS]),
        (&read, "/data/out", &[libc::EXDEV, libc::ELOOP, libc::EACCES]),
        (&read, "/data/../../etc/passwd", &[libc::EXDEV, libc::ENOENT, libc::EINVAL, libc::EACCES]),
        (&read, "/data/some/below", &[libc::ENOTDIR]),
        (&read, "", &[libc::ENOENT]),
    ] {
        let error = options.open_on(&client, path).unwrap_err();
        assert!(expected.contains(&error.errno()), "{path}: {error}");
    }
    let long = format!("/data/{}", "x".repeat(5000));
    assert_eq!(errno(read.open_on(&client, long)), libc::ENAMETOOLONG);
    assert_eq!(
        errno(OpenOptions::new().open_on(&client, "/data/some")),
        libc::EINVAL,
        "neither read nor write"
    );
    assert_eq!(errno(read.clone().truncate(true).open_on(&client, "/data/some")), libc::EINVAL);
    let exclusive = write.clone().create_new(true).open_on(&client, "/data/some");
    assert_eq!(errno(exclusive), libc::EEXIST);
    let message = read.open_on(&client, "/data/none").unwrap_err().to_string();
    assert_eq!(message, "open: /data/none: No such file or directory");

    let file = read.open_on(&client, "/data/some").unwrap();
    assert_eq!(errno(file.write_at(b"x", 0)), libc::EBADF, "opened for reading");
    assert_eq!(errno(file.truncate(0)), libc::EINVAL);
    assert_eq!(errno(file.read_at(&mut [0; 2], i64::MAX as u64)), libc::EINVAL);
    assert_eq!(errno(file.read_at(&mut [0; 2], u64::MAX)), libc::EINVAL);
    assert_eq!(file.read_at(&mut [0; 200], 0).unwrap(), 100, "the connection outlives all that");
}

#[test]
fn a_limit_on_open_files_of_others_is_not_ours() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 100);
    let client = Client::connect(&server.uri("/")).unwrap();
    // Dropped files are closed at the server, else its limit of files in a session would show.
    for _ in 0..3000 {
        let file = OpenOptions::new().read(true).open_on(&client, "/data/some").unwrap();
        drop(file);
    }
    assert!(client.info().unwrap().open_files <= 1);
}

#[test]
fn threads_share_a_file() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = server.file("shared", 1 << 20);
    let file = File::open(&server.uri("/data/shared")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (file, bytes) = (&file, &bytes);
            scope.spawn(move || {
                for round in 0..200_usize {
                    let offset = (thread * 7919 + round * 104_729) % (bytes.len() - 4096);
                    let mut buffer = [0; 4096];
                    file.read_exact_at(&mut buffer, offset as u64).unwrap();
                    assert!(buffer[..] == bytes[offset..offset + 4096]);
                }
            });
        }
    });
}

#[test]
fn noatime_is_dropped_where_it_is_not_permitted() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 100);
    let file = OpenOptions::new().read(true).no_atime(true).open(&server.uri("/data/some")).unwrap();
    assert_eq!(file.read_at(&mut [0; 200], 0).unwrap(), 100);
}

#[test]
fn checksums_on_the_wire_change_nothing_else() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = server.file("sums", 1 << 20);
    let client = ClientOptions { crc: true, ..ClientOptions::default() };
    let file = OpenOptions::new().read(true).client(client).open(&server.uri("/data/sums")).unwrap();
    let mut back = vec![0; bytes.len()];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back == bytes);
}
