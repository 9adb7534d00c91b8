//! Who may come in by shared memory, with real processes of other users and in other namespaces, as containers are: the
//! user that the kernel shows counts, not what a process thinks of itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;
mod serving;

use conformance::watchdog;
use libxio::{ConnectionOptions, Context, ContextOptions, Event, Landing, OutgoingRequest, Region, Session};
use raw::LONG;
use serving::Server;
use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// A user that no machine has.
const STRANGER: libc::uid_t = 54_321;

/// Where a child process lives.
#[derive(Debug, Clone, Copy, Default)]
struct World {
    /// As this user, not as root.
    user: Option<libc::uid_t>,
    /// In a user namespace of its own, in which it is this user.
    inside: Option<libc::uid_t>,
    /// In a mount namespace of its own; there the folder of the server's socket is elsewhere.
    moved: bool,
}

/// What one of these calls says, when it fails.
fn check(outcome: libc::c_long) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs in the child, between fork and exec: raw calls only. Those of the library would speak to threads that are not there.
fn enter(world: World, map: &CString, folders: Option<(&CString, &CString)>) -> io::Result<()> {
    // SAFETY: plain system calls on values that live, with strings that end in a zero.
    unsafe {
        if let Some((real, moved)) = folders {
            check(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNS))?;
            let none = std::ptr::null::<libc::c_char>();
            let private = libc::MS_REC | libc::MS_PRIVATE;
            check(libc::syscall(libc::SYS_mount, none, c"/".as_ptr(), none, private, none))?;
            let (from, to) = (real.as_ptr(), moved.as_ptr());
            check(libc::syscall(libc::SYS_mount, from, to, none, libc::MS_BIND, none))?;
            // Where it was there is nothing any more.
            check(libc::syscall(libc::SYS_mount, c"none".as_ptr(), from, c"tmpfs".as_ptr(), 0, none))?;
        }
        if let Some(user) = world.user {
            check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
            check(libc::syscall(libc::SYS_setresgid, user, user, user))?;
            check(libc::syscall(libc::SYS_setresuid, user, user, user))?;
            // Its files in /proc are its own.
            check(libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0))?;
        }
        if world.inside.is_some() {
            check(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER))?;
            let path = c"/proc/self/uid_map".as_ptr();
            let file = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_WRONLY);
            check(file)?;
            let bytes = map.as_bytes();
            check(libc::syscall(libc::SYS_write, file, bytes.as_ptr(), bytes.len()))?;
            check(libc::syscall(libc::SYS_close, file))?;
        }
    }
    Ok(())
}

/// This program again, to run one test in a world; `None` where such a world can't be made here.
fn child(world: World, test: &str, variable: (&str, &str), folders: Option<[&str; 2]>) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root, to be somebody else ({world:?})");
        return None;
    }
    let [real, moved] = folders.unwrap_or_default().map(|path| CString::new(path).unwrap());
    let map = world.inside.map(|inside| format!("{inside} {} 1\n", world.user.unwrap_or(0)));
    let map = CString::new(map.unwrap_or_default()).unwrap();
    // By a way that needs no leave to walk through folders.
    let mut command = Command::new("/proc/self/exe");
    command.args([test, "--exact", "--nocapture"]).env(variable.0, variable.1).stdin(Stdio::null());
    // SAFETY: `enter` makes raw system calls only.
    unsafe {
        command.pre_exec(move || enter(world, &map, world.moved.then_some((&real, &moved))));
    }
    Some(command)
}

/// For the tests below: a client that asks once and says what came of it.
#[test]
fn visitor() {
    let Ok(uri) = std::env::var("LIBXIO_TEST_VISITOR") else { return };
    let said = |what: String| println!("\nvisitor: {what}");
    let mut client = Context::new(ContextOptions::default()).unwrap();
    let region = Region::allocate(65_536, false).unwrap();
    let connection = match client.connect(&Session::new(uri.parse().unwrap()), ConnectionOptions::default()) {
        Ok(connection) => connection,
        Err(error) => return said(format!("errno {}", error.errno())),
    };
    let start = Instant::now();
    while start.elapsed() < LONG {
        client.wait(Some(LONG)).unwrap();
        match client.next_event() {
            Some(Event::Connected { .. }) => {
                let landing = Landing::Place(region.slice(0, 4096).unwrap().into());
                client
                    .request(connection, OutgoingRequest { landing, ..OutgoingRequest::new(b"", 1) })
                    .unwrap();
            }
            Some(Event::Response { outcome, .. }) => {
                assert!(outcome.unwrap().data.to_vec() == [b'a'; 4096]);
                return said("served".to_owned());
            }
            Some(Event::Closed { reason, .. }) => return said(format!("errno {}", reason.errno())),
            _ => {}
        }
    }
}

fn word(output: &Output, before: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(before));
    line.unwrap_or_else(|| panic!("the child has not said what came of it: {output:?}")).to_owned()
}

/// What a visitor from this world gets from a server whose uri ends so. It does not mind itself who the server is.
fn visit(world: World, allow: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let [real, moved] = ["real", "moved"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let all = rustix::fs::Mode::from_raw_mode(0o755);
    rustix::fs::chmod(folder.path(), all).unwrap();
    for path in [&real, &moved] {
        std::fs::create_dir(path).unwrap();
    }
    let path = format!("{real}/raio.sock");
    let server = Server::at(&format!("{path}{allow}"));
    // The file's mode keeps others out too; here it is the look at who they are.
    rustix::fs::chmod(path.as_str(), rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    let reached = if world.moved { format!("{moved}/raio.sock") } else { path };
    let uri = format!("shm:///?socket={reached}&allow=any");
    let output = child(world, "visitor", ("LIBXIO_TEST_VISITOR", &uri), Some([&real, &moved]))?.output();
    let output = match output {
        Ok(output) => output,
        Err(cause) => {
            println!("skipped: this machine has no such world ({world:?}): {cause}");
            return None;
        }
    };
    server.serves();
    Some(word(&output, "visitor: "))
}

fn expect(world: World, allow: &str, expected: Result<(), i32>) {
    let expected = expected.map_or_else(|errno| format!("errno {errno}"), |()| "served".to_owned());
    if let Some(said) = visit(world, allow) {
        assert_eq!(said, expected, "{world:?} at a server with {allow:?}");
    }
}

#[test]
fn another_user_comes_in_by_the_list_only() {
    let world = World { user: Some(STRANGER), ..World::default() };
    expect(world, "", Err(libc::EACCES));
    expect(world, "?allow=54322", Err(libc::EACCES));
    expect(world, "?allow=54322,54321", Ok(()));
    expect(world, "?allow=any", Ok(()));
}

/// Root in its own user namespace, as in a container, is the user outside that it was made by.
#[test]
fn root_of_a_container_is_no_root() {
    let world = World { user: Some(STRANGER), inside: Some(0), ..World::default() };
    expect(world, "", Err(libc::EACCES));
    expect(world, "?allow=54321", Ok(()));
    // And whatever our root calls itself there is root here.
    expect(World { inside: Some(STRANGER), ..World::default() }, "", Ok(()));
}

/// A container has its own view of the files: it is the socket that counts, wherever it is seen.
#[test]
fn a_socket_is_reached_from_another_mount_namespace() {
    let moved = World { moved: true, ..World::default() };
    expect(moved, "", Ok(()));
    let stranger = World { user: Some(STRANGER), inside: Some(0), ..moved };
    expect(stranger, "", Err(libc::EACCES));
    expect(stranger, "?allow=54321", Ok(()));
}

/// For the test below: a server that serves until its time is over.
#[test]
fn host() {
    let Ok(path) = std::env::var("LIBXIO_TEST_HOST") else { return };
    let server = Server::at(&path);
    println!("\nhost: listening");
    std::thread::sleep(LONG);
    drop(server);
}

/// A server in a container sees users from outside as nobody. Those are not its own user, be it nobody itself, nor does a
/// client outside take a stranger's server for its own.
#[test]
fn users_without_a_number_are_strangers() {
    use std::io::{BufRead, BufReader};
    watchdog();
    let connect = |client: &mut Context, uri: &str| {
        let session = Session::new(uri.parse().unwrap());
        if let Err(error) = client.connect(&session, ConnectionOptions::default()) {
            return Some(error.errno());
        }
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < LONG);
            client.wait(Some(LONG)).unwrap();
            match client.next_event() {
                Some(Event::Connected { .. }) => return None,
                Some(Event::Closed { reason, .. }) => return Some(reason.errno()),
                _ => {}
            }
        }
    };
    for (inside, allow, outcome) in [
        (0, "", Some(libc::EACCES)),
        (65_534, "", Some(libc::EACCES)),
        (0, "?allow=65533", Some(libc::EACCES)),
        (0, "?allow=any", None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        rustix::fs::chmod(folder.path(), rustix::fs::Mode::from_raw_mode(0o777)).unwrap();
        let path = folder.path().join("raio.sock").to_str().unwrap().to_owned();
        let world = World { user: Some(STRANGER), inside: Some(inside), ..World::default() };
        let listen = format!("{path}{allow}");
        let Some(mut command) = child(world, "host", ("LIBXIO_TEST_HOST", &listen), None) else { return };
        let mut host = match command.stdout(Stdio::piped()).spawn() {
            Ok(host) => host,
            Err(cause) => return println!("skipped: this machine has no such world ({world:?}): {cause}"),
        };
        let mut said = BufReader::new(host.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(said.any(|line| line == "host: listening"), "{world:?}");
        let mut client = Context::new(ContextOptions::default()).unwrap();
        let uri = format!("shm:///?socket={path}");
        assert_eq!(connect(&mut client, &format!("{uri}&allow=any")), outcome, "{inside} {allow}");
        // The server's user is not ours.
        assert_eq!(connect(&mut client, &uri), Some(libc::EACCES));
        host.kill().unwrap();
        host.wait().unwrap();
    }
}
