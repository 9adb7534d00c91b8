//! Peers on shared memory that are killed in the middle of their work: the other side notices, and nothing is left
//! behind. `LIBXIO_KILLS=n` sets how many are.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;
mod serving;

use conformance::{Fabric, watchdog};
use libxio::{ConnectionOptions, Context, ContextOptions, Event, Landing, OutgoingRequest, Region, Session};
use raw::LONG;
use serving::Server;
use std::time::{Duration, Instant};

/// For the child processes of the tests below: a client that never stops asking.
#[test]
fn child() {
    let Ok(path) = std::env::var("LIBXIO_TEST_CHILD") else { return };
    let mut client = Context::new(ContextOptions::default()).unwrap();
    let uri = format!("shm:///?socket={path}").parse().unwrap();
    let connection = client.connect(&Session::new(uri), ConnectionOptions::default()).unwrap();
    loop {
        client.wait(None).unwrap();
        while let Some(event) = client.next_event() {
            if let Event::Closed { .. } = event {
                return;
            }
            let mut data = client.pool().take(65_536).unwrap();
            data.copy_from(0, &[1; 65_536]);
            let landing = Landing::Pool(65_536);
            let _ = client.request(
                connection,
                OutgoingRequest { data: data.into(), landing, ..OutgoingRequest::new(b"", 1) },
            );
        }
    }
}

fn kills() -> u32 {
    std::env::var("LIBXIO_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(50)
}

#[test]
fn clients_that_are_killed_leave_nothing_behind() {
    let server = Server::start();
    for round in 0..kills() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env("LIBXIO_TEST_CHILD", &server.path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let before = server.counters().requests_received;
        server
            .until("the child's requests", |now| now.requests_received > before + u64::from(round % 7) * 20);
        child.kill().unwrap();
        child.wait().unwrap();
        server.until("its end", |now| now.connections == 0 && now.requests_running == 0);
    }
    server.serves();
}

/// A server that is killed: the client learns of it at once, and goes on with the next one.
#[test]
fn servers_that_are_killed_are_noticed() {
    watchdog();
    let path = Fabric::shm().listen.resource().to_owned();
    let region = Region::allocate(1 << 20, false).unwrap();
    let mut client = Context::new(ContextOptions::default()).unwrap();
    for _ in 0..kills() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["child_server", "--exact", "--nocapture"])
            .env("LIBXIO_TEST_CHILD_SERVER", &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let mut answers = 0;
        let mut connection = None;
        loop {
            assert!(begun.elapsed() < LONG);
            if connection.is_none() {
                let uri = format!("shm:///?socket={path}").parse().unwrap();
                connection = client.connect(&Session::new(uri), ConnectionOptions::default()).ok();
            }
            client.wait(Some(Duration::from_millis(5))).unwrap();
            let Some(event) = client.next_event() else { continue };
            match event {
                // It was not there yet, or it is gone.
                Event::Closed { reason, .. } if answers > 20 => {
                    assert_eq!(reason.errno(), libc::ECONNRESET, "{reason}");
                    break;
                }
                Event::Closed { .. } => connection = None,
                Event::Response { outcome: Err(_), .. } => {}
                _ => {
                    answers += 1;
                    if answers == 21 {
                        child.kill().unwrap();
                    }
                    let landing = Landing::Place(region.slice(0, 65_536).unwrap().into());
                    let _ = connection.map(|connection| {
                        client
                            .request(connection, OutgoingRequest { landing, ..OutgoingRequest::new(b"", 1) })
                    });
                }
            }
        }
        while client.next_event().is_some() {}
        child.wait().unwrap();
    }
    assert!(region.is_shareable(), "a dead server has let go of it");
    let _ = std::fs::remove_file(&path);
}

/// For the test above: a server that answers until it is killed.
#[test]
fn child_server() {
    let Ok(path) = std::env::var("LIBXIO_TEST_CHILD_SERVER") else { return };
    let server = Server::at(&path);
    std::thread::sleep(LONG);
    drop(server);
}

/// A real process that is stopped while it has memory of the client's to write into: the client gives it up, uses its memory
/// for something else, and what the server does when it goes on, it does to other pages. The memory is shared again with
/// the next server.
#[test]
fn a_server_that_was_stopped_cannot_write_into_reused_memory() {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    watchdog();
    let region = Region::allocate(1 << 20, false).unwrap();
    let mut client = Context::new(ContextOptions::default()).unwrap();
    for round in 0..5_u8 {
        let path = Fabric::shm().listen.resource().to_owned();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["child_that_writes_late", "--exact", "--nocapture"])
            .env("LIBXIO_TEST_CHILD_WRITES_LATE", &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut meet = |word: &str| assert!(said.any(|line| line == word), "{word}");
        meet("listening");
        let uri = format!("shm:///?socket={path}").parse().unwrap();
        let connection = client.connect(&Session::new(uri), ConnectionOptions::default()).unwrap();
        let start = Instant::now();
        while !matches!(client.next_event(), Some(Event::Connected { .. })) {
            assert!(start.elapsed() < LONG);
            client.wait(Some(Duration::from_millis(5))).unwrap();
        }
        let landing = Landing::Place(region.slice(8192, 65_536).unwrap().into());
        client.request(connection, OutgoingRequest { landing, ..OutgoingRequest::new(b"", 1) }).unwrap();
        client.flush().unwrap();
        meet("has the memory");
        // It was written once before, so it is the client's own that the server has.
        assert!(region.slice(8192, 65_536).unwrap().to_vec() == [100; 65_536]);
        let process = Pid::from_child(&child);
        kill_process(process, Signal::STOP).unwrap();
        waitpid(Some(process), WaitOptions::UNTRACED).unwrap();
        client.abort(connection).unwrap();
        while client.next_event().is_some() {}
        let mut reused = region.slice(8192, 65_536).unwrap();
        reused.copy_from(0, &[round; 65_536]);
        kill_process(process, Signal::CONT).unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "go on").unwrap();
        meet("has written");
        assert!(reused.to_vec() == [round; 65_536], "a stopped server has written into reused memory");
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = std::fs::remove_file(&path);
    }
}

/// For the test above: a server that writes into its first request's landing, and again when it is told to.
#[test]
fn child_that_writes_late() {
    use libxio::{AcceptOptions, ServerOptions};
    let Ok(path) = std::env::var("LIBXIO_TEST_CHILD_WRITES_LATE") else { return };
    let mut server = Context::new(ContextOptions::default()).unwrap();
    server.listen(&format!("shm://{path}").parse().unwrap(), ServerOptions::default()).unwrap();
    // After what the test runner has begun.
    println!("\nlistening");
    loop {
        server.wait(None).unwrap();
        match server.next_event() {
            Some(Event::ConnectionRequest(request)) => {
                server.accept(request, AcceptOptions::new()).unwrap();
            }
            Some(Event::Request(request)) => {
                let length = request.room() as usize;
                let mut buffer = server.response_buffer(&request, length).unwrap();
                assert!(buffer.try_as_slice().is_none(), "it is the client's memory");
                buffer.copy_from(0, &vec![100; length]);
                println!("has the memory");
                std::io::stdin().read_line(&mut String::new()).unwrap();
                buffer.copy_from(0, &vec![99; length]);
                println!("has written");
                std::io::stdin().read_line(&mut String::new()).unwrap();
                return;
            }
            _ => {}
        }
    }
}
