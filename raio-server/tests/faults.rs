//! Files that can't be read or written: the disk is full, the device fails, the user may not.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::{Client, File, OpenOptions, Queue};
use raio_server::ExportConfig;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Server, minute, noise};

/// A file system of the test's own, unmounted at its end.
struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    /// `None`, with a word, where this user may not mount.
    fn new(arguments: &[&str]) -> Option<Mounted> {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new("mount").args(arguments).arg(directory.path()).output().unwrap();
        if output.status.success() {
            return Some(Mounted { directory });
        }
        println!("skipped: mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        None
    }

    fn tmpfs() -> Option<Mounted> {
        Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "raio-test"])
    }

    /// ext4 of 8 MiB in a file.
    fn ext4(image: &Path) -> Option<Mounted> {
        std::fs::File::create(image).unwrap().set_len(8 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-O", "^has_journal"]).arg(image).output();
        match made {
            Ok(output) if output.status.success() => {
                Mounted::new(&["-t", "ext4", "-o", "loop", image.to_str().unwrap()])
            }
            other => {
                println!("skipped: mkfs.ext4: {other:?}");
                None
            }
        }
    }

    fn server(&self) -> Server {
        let export = format!("small={}", self.directory.path().display());
        Server::with(|config| config.exports.push(ExportConfig::parse(&export).unwrap()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

fn errno<T: std::fmt::Debug>(result: raio::Result<T>) -> i32 {
    result.unwrap_err().errno()
}

/// Writes until the disk is full; what was acknowledged is there, and the server goes on.
fn fill(server: &Server) {
    let uri = server.uri("/small/file");
    let file = File::create(&uri).unwrap();
    let block = noise(64 << 10);
    let mut written = 0;
    let full = loop {
        match file.write_at(&block, written) {
            Ok(0) => panic!("a write of nothing is no way to tell that the disk is full"),
            Ok(count) => {
                written += count as u64;
                assert!(written < 64 << 20, "it never gets full");
                if count < block.len() {
                    // Short: the rest meets the error.
                    assert_eq!(errno(file.write_at(&block[count..], written)), libc::ENOSPC);
                }
            }
            Err(error) => break error,
        }
    };
    assert_eq!(full.errno(), libc::ENOSPC, "{full}");
    assert!(written >= 512 << 10, "{written}");
    assert_eq!(errno(file.write_durable_at(&block, written)), libc::ENOSPC);
    assert_eq!(file.stat().unwrap().size, written);
    let mut back = vec![0; block.len()];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back == block);
    // Many at a time: each is told.
    let mut queue = Queue::open(&uri, OpenOptions::new().write(true), 16).unwrap();
    for token in 0..16 {
        queue.submit_write(written + (token << 16), block.clone(), token).unwrap();
    }
    queue.wait(16, None).unwrap();
    while let Some(completion) = queue.next() {
        assert_eq!(completion.result.unwrap_err().errno(), libc::ENOSPC);
    }
    file.truncate(0).unwrap();
    assert_eq!(file.write_at(&block, 0).unwrap(), block.len(), "there is room again");
    file.flush().unwrap();
}

#[test]
fn a_full_disk_in_memory() {
    let _watchdog = minute();
    let Some(mounted) = Mounted::tmpfs() else { return };
    fill(&mounted.server());
}

#[test]
fn a_full_disk_on_a_device() {
    let _watchdog = minute();
    let images = tempfile::tempdir().unwrap();
    let Some(mounted) = Mounted::ext4(&images.path().join("image")) else { return };
    fill(&mounted.server());
}

#[test]
fn a_file_that_fails_gives_its_own_error() {
    let _watchdog = minute();
    // Reads of the server's own memory fail with EIO where nothing is mapped: at 0.
    let server =
        Server::with(|config| config.exports.push(ExportConfig::parse("bad=/proc/self/mem:ro").unwrap()));
    let file = File::open(&server.uri("/bad")).unwrap();
    for length in [1, 4096, 1 << 20] {
        assert_eq!(errno(file.read_at(&mut vec![0; length], 0)), libc::EIO);
    }
    let mut queue = Queue::open(&server.uri("/bad"), OpenOptions::new().read(true), 32).unwrap();
    for token in 0..32 {
        queue.submit_read(token << 12, 4096, token).unwrap();
    }
    queue.wait(32, None).unwrap();
    while let Some(completion) = queue.next() {
        assert_eq!(completion.result.unwrap_err().errno(), libc::EIO);
    }
    assert_eq!(errno(file.flush()), libc::EINVAL, "what fsync(2) says of such a file");
    server.serves();
}

#[test]
fn files_that_the_servers_user_may_not_use() {
    let _watchdog = minute();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can start a server as another user");
        return;
    }
    // In a place that another user reaches: the server's binary, and what it exports.
    let place = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let binary = place.path().join("raio-server");
    std::fs::copy(env!("CARGO_BIN_EXE_raio-server"), &binary).unwrap();
    let exported = place.path().join("exported");
    std::fs::create_dir(&exported).unwrap();
    for (name, mode) in [("public", 0o644), ("private", 0o600), ("open", 0o666)] {
        std::fs::write(exported.join(name), name).unwrap();
        std::fs::set_permissions(exported.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(&exported, PermissionsExt::from_mode(0o755)).unwrap();
    let mut child = Command::new(&binary)
        .args(["--listen", "127.0.0.1:0", "-n", "1", "--log", "warn", "--export"])
        .arg(format!("data={}", exported.display()))
        .stdout(Stdio::piped())
        .uid(65_534)
        .gid(65_534)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let address = line.trim().strip_prefix("listening ").unwrap().to_owned();
    let client = Client::connect(&format!("{address}/")).unwrap();
    let mut read = OpenOptions::new();
    read.read(true);
    let mut write = OpenOptions::new();
    write.write(true);
    read.open_on(&client, "/data/public").unwrap();
    write.open_on(&client, "/data/open").unwrap();
    assert_eq!(errno(read.open_on(&client, "/data/private")), libc::EACCES);
    assert_eq!(errno(write.open_on(&client, "/data/public")), libc::EACCES);
    assert_eq!(errno(write.clone().create(true).open_on(&client, "/data/new")), libc::EACCES);
    assert_eq!(errno(client.unlink("/data/public")), libc::EACCES);
    assert_eq!(errno(client.rename("/data/public", "/data/other", false)), libc::EACCES);
    assert_eq!(client.stat("/data/private").unwrap().size, 7, "a look at it is allowed");
    // Only a file's owner may leave its access time alone: the client asks again without.
    read.no_atime(true).open_on(&client, "/data/public").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn direct_io_keeps_the_rules_of_the_device() {
    let _watchdog = minute();
    // A tmpfs may have no O_DIRECT; where the build is, there is a disk.
    let on_disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let export = format!("disk={}", on_disk.path().display());
    let server = Server::with(|config| config.exports.push(ExportConfig::parse(&export).unwrap()));
    let bytes = noise(100_000);
    std::fs::write(on_disk.path().join("x"), &bytes).unwrap();
    let mut options = OpenOptions::new();
    let file = match options.read(true).write(true).direct(true).open(&server.uri("/disk/x")) {
        Err(error) if error.errno() == libc::EINVAL => {
            println!("skipped: no O_DIRECT here");
            return;
        }
        other => other.unwrap(),
    };
    let align = file.attributes().offset_alignment.max(512) as usize;
    let mut back = vec![0; 1 << 20];
    for (offset, length) in [(0, align), (align, 4 * align), (0, 1 << 20), (98_304, align)] {
        let read = file.read_at(&mut back[..length], offset as u64).unwrap();
        let expected = &bytes[offset..bytes.len().min(offset + length)];
        assert!(back[..read] == *expected, "{length} at {offset}: {read}");
    }
    assert_eq!(errno(file.read_at(&mut back[..100], 0)), libc::EINVAL, "a length off the grid");
    assert_eq!(errno(file.read_at(&mut back[..align], 1)), libc::EINVAL, "an offset off the grid");
    let block = noise(4 * align);
    assert_eq!(file.write_at(&block, align as u64).unwrap(), block.len());
    assert_eq!(file.write_durable_at(&block[..align], 0).unwrap(), align);
    assert_eq!(errno(file.write_at(&block[..100], 0)), libc::EINVAL);
    let on_disk = std::fs::read(on_disk.path().join("x")).unwrap();
    assert!(on_disk[..align] == block[..align] && on_disk[align..5 * align] == block[..]);
}

#[test]
fn a_block_device() {
    let _watchdog = minute();
    let images = tempfile::tempdir().unwrap();
    let image = images.path().join("image");
    let bytes = noise(1 << 20);
    std::fs::write(&image, &bytes).unwrap();
    // It may not be on the path of who may not use it either.
    let made = match Command::new("losetup").args(["--show", "-f"]).arg(&image).output() {
        Ok(made) if made.status.success() => made,
        Ok(made) => return println!("skipped: losetup: {}", String::from_utf8_lossy(&made.stderr).trim()),
        Err(cause) => return println!("skipped: losetup: {cause}"),
    };
    let device = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let check = || {
        let export = ExportConfig::parse(&format!("disk={device}")).unwrap();
        let server = Server::with(|config| config.exports.push(export));
        let client = Client::connect(&server.uri("/")).unwrap();
        assert_eq!(client.stat("/disk").unwrap().size, 1 << 20);
        let mut options = OpenOptions::new();
        for direct in [false, true] {
            let file = options.read(true).write(true).direct(direct).open_on(&client, "/disk").unwrap();
            assert_eq!(file.attributes().size, 1 << 20, "the device's, not the node's");
            let mut back = vec![0; 4096];
            file.read_exact_at(&mut back, 8192).unwrap();
            assert!(back == bytes[8192..12_288]);
            assert_eq!(file.read_at(&mut back, 1 << 20).unwrap(), 0);
            assert_eq!(file.write_at(&bytes[8192..12_288], 8192).unwrap(), 4096);
            file.flush().unwrap();
            assert_eq!(errno(file.write_at(&bytes[..4096], 1 << 20)), libc::ENOSPC, "beyond its end");
            file.close().unwrap();
        }
    };
    let outcome = std::panic::catch_unwind(check);
    let _ = Command::new("losetup").arg("-d").arg(&device).status();
    outcome.unwrap();
}
