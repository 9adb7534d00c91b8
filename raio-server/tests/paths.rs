//! Paths that lead out, or that may not be used: refused, with the errno that says it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::{Client, OpenOptions};
use raio_server::ExportConfig;
use std::os::unix::fs::symlink;
use support::{Server, minute};

fn errno<T: std::fmt::Debug>(result: raio::Result<T>) -> i32 {
    result.unwrap_err().errno()
}

/// What the kernel says of a path that would leave the export.
const ESCAPES: [i32; 2] = [libc::EXDEV, libc::ELOOP];

#[test]
fn nothing_leads_out_of_an_export() {
    let _watchdog = minute();
    let server = Server::with(|config| config.exports.push(ExportConfig::parse("proc=/proc").unwrap()));
    server.file("some", 100);
    std::fs::create_dir(server.path("sub")).unwrap();
    symlink("/etc/passwd", server.path("absolute")).unwrap();
    symlink("../../../../../../etc/passwd", server.path("relative")).unwrap();
    symlink("/etc", server.path("directory")).unwrap();
    symlink("../some", server.path("sub/inside")).unwrap();
    let client = Client::connect(&server.uri("/")).unwrap();
    let mut read = OpenOptions::new();
    read.read(true);
    let mut write = OpenOptions::new();
    write.write(true).create(true);
    for path in [
        "/data/absolute",
        "/data/relative",
        "/data/directory/passwd",
        "/data/../../../../../etc/passwd",
        "/data/sub/../../some",
        "/data//etc/../../passwd",
        "/data/sub/../../../etc/passwd",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd",
        "/proc/self/fd/0",
        "/proc/thread-self/fd/0",
    ] {
        let found = errno(read.open_on(&client, path));
        assert!(
            ESCAPES.contains(&found) || (path.contains("//etc") && found == libc::ENOENT),
            "{path}: {found}"
        );
        let found = errno(client.stat(path));
        assert!(ESCAPES.contains(&found) || found == libc::ENOENT, "stat {path}: {found}");
    }
    for path in ["/data/directory/new", "/data/../new", "/data/relative"] {
        let found = errno(write.open_on(&client, path));
        assert!(ESCAPES.contains(&found), "{path}: {found}");
    }
    for path in ["/data/directory", "/data/..", "/data/sub/../.."] {
        let found = errno(client.list(path));
        assert!(ESCAPES.contains(&found), "list {path}: {found}");
    }
    for path in ["/data/directory/passwd", "/data/../x", "/data/sub/../../x"] {
        assert!(ESCAPES.contains(&errno(client.unlink(path))), "unlink {path}");
        assert!(ESCAPES.contains(&errno(client.rename("/data/some", path, false))), "rename to {path}");
        assert!(ESCAPES.contains(&errno(client.rename(path, "/data/x", false))), "rename from {path}");
    }
    assert_eq!(errno(client.unlink("/data/sub/..")), libc::EINVAL);
    assert_eq!(errno(client.rename("/data/some", "/data/sub/..", false)), libc::EINVAL);
    assert_eq!(errno(client.remove_directory("/data")), libc::EBUSY, "the export itself stays");
    assert_eq!(errno(client.rename("/data/some", "/null/x", false)), libc::EXDEV);
    assert_eq!(errno(client.rename("/data/some", "/nowhere/x", false)), libc::EXDEV);
    // What stays inside is followed.
    assert_eq!(read.open_on(&client, "/data/sub/inside").unwrap().attributes().size, 100);
    assert_eq!(client.stat("/data/sub/../some").unwrap().size, 100);
    // A link may be removed; what it leads to is not touched.
    client.unlink("/data/absolute").unwrap();
    assert!(std::fs::metadata("/etc/passwd").is_ok());
}

#[test]
fn paths_without_an_export_are_not_there() {
    let _watchdog = minute();
    let server = Server::start();
    let client = Client::connect(&server.uri("/")).unwrap();
    for path in ["/etc/passwd", "/dat", "/dataa", "data/x", "/../data", "/dev/zero", "/dev"] {
        assert_eq!(errno(client.stat(path)), libc::ENOENT, "{path}");
    }
    let mut read = OpenOptions::new();
    assert_eq!(errno(read.read(true).open_on(&client, "/")), libc::EISDIR);
    assert_eq!(errno(client.unlink("/")), libc::EBUSY);
    assert_eq!(errno(client.list("/")), libc::EOPNOTSUPP);
    assert_eq!(errno(client.stat("/null/below")), libc::ENOTDIR);
    assert_eq!(errno(client.list("/null")), libc::ENOTDIR);
    assert_eq!(errno(client.unlink("/dev/null")), libc::EPERM);
    assert_eq!(errno(client.rename("/null", "/null/x", false)), libc::EPERM);
}

#[test]
fn a_read_only_export_stays_as_it_is() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = server.file("some", 100);
    let client = Client::connect(&server.uri("/")).unwrap();
    let mut options = OpenOptions::new();
    for open in [
        options.clone().write(true),
        options.clone().read(true).write(true).truncate(true),
        options.clone().write(true).create(true),
        options.clone().write(true).create_new(true),
    ] {
        assert_eq!(errno(open.open_on(&client, "/ro/some")), libc::EROFS);
        assert_eq!(errno(open.open_on(&client, "/ro/new")), libc::EROFS);
    }
    assert_eq!(errno(client.unlink("/ro/some")), libc::EROFS);
    assert_eq!(errno(client.rename("/ro/some", "/ro/other", false)), libc::EROFS);
    assert_eq!(errno(client.rename("/data/some", "/ro/other", false)), libc::EXDEV);
    let file = options.read(true).open_on(&client, "/ro/some").unwrap();
    assert!(file.attributes().read_only && file.stat().unwrap().read_only);
    assert!(!client.stat("/data/some").unwrap().read_only);
    assert_eq!(errno(file.write_at(b"x", 0)), libc::EBADF);
    assert_eq!(errno(file.discard(0, 1)), libc::EBADF);
    assert_eq!(errno(file.truncate(0)), libc::EINVAL);
    assert!(std::fs::read(server.path("some")).unwrap() == bytes);
}

#[test]
fn what_is_no_file_is_not_opened() {
    let _watchdog = minute();
    let server = Server::start();
    std::fs::create_dir(server.path("sub")).unwrap();
    let fifo = server.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(server.path("socket")).unwrap();
    let client = Client::connect(&server.uri("/")).unwrap();
    let mut options = OpenOptions::new();
    // A pipe without another end would make the open wait for ever.
    for open in [options.clone().read(true), options.clone().write(true), options.read(true).write(true)] {
        assert_eq!(errno(open.open_on(&client, "/data/pipe")), libc::ENXIO);
        assert_eq!(errno(open.open_on(&client, "/data/socket")), libc::ENXIO);
        assert_eq!(errno(open.open_on(&client, "/data/sub")), libc::EISDIR);
        assert_eq!(errno(open.open_on(&client, "/data")), libc::EISDIR);
    }
    assert_eq!(errno(client.unlink("/data/sub")), libc::EISDIR);
    server.serves();
}

#[test]
fn new_files_get_the_mode_less_the_umask_and_no_set_user_bits() {
    let _watchdog = minute();
    use std::os::unix::fs::MetadataExt;
    let server = Server::start();
    let client = Client::connect(&server.uri("/")).unwrap();
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for (name, mode, expected) in [("a", 0o666, 0o644), ("b", 0o7777, 0o755), ("c", 0o600, 0o600)] {
        options.mode(mode).open_on(&client, format!("/data/{name}")).unwrap();
        assert_eq!(std::fs::metadata(server.path(name)).unwrap().mode() & 0o7777, expected, "{name}");
    }
    rustix::process::umask(umask);
}

#[test]
fn exports_of_a_file_and_of_changing_content() {
    let _watchdog = minute();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("one");
    std::fs::write(&path, b"0123456789").unwrap();
    let texts = [format!("one={}", path.display()), format!("{}", path.display())];
    let server = Server::with(|config| {
        config.exports.extend(texts.iter().map(|text| ExportConfig::parse(text).unwrap()));
    });
    let client = Client::connect(&server.uri("/")).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let file = options.open_on(&client, "/one").unwrap();
    assert_eq!(file.write_at(b"abc", 0).unwrap(), 3);
    let same = options.open_on(&client, path.to_str().unwrap()).unwrap();
    assert_eq!(same.attributes().inode, file.attributes().inode);
    let mut back = [0; 20];
    assert_eq!(same.read_at(&mut back, 0).unwrap(), 10);
    assert_eq!(&back[..10], b"abc3456789");
    assert_eq!(errno(options.open_on(&client, "/one/below")), libc::ENOTDIR);
    assert_eq!(errno(client.unlink("/one")), libc::EBUSY);
    assert_eq!(errno(client.rename("/one", "/one/x", false)), libc::EBUSY);
    assert_eq!(errno(options.create_new(true).open_on(&client, "/one")), libc::EEXIST);
    assert_eq!(client.stat("/one").unwrap().size, 10);
}
