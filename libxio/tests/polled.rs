//! Two sides that poll shared memory make no system call: the kernel is told to kill them if they do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::{Fabric, Pair, watchdog};
use libxio::{Connection, Event, Landing, OutgoingRequest, OutgoingResponse, Region};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Whether reading the clock is a matter of the vDSO alone here.
fn clock_needs_no_call() -> bool {
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    source.is_ok_and(|source| matches!(source.trim(), "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page"))
}

/// From here on this thread makes no call but `write` and `exit`, or its process is killed. False where seccomp is not to
/// be had.
fn forbid_system_calls() -> bool {
    // Constants and offsets below a u16.
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        // The call's number stands first.
        step(load, 0, 0, 0),
        step(equal, 2, 0, libc::SYS_write as u32),
        step(equal, 1, 0, libc::SYS_exit as u32),
        step(end, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(end, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is valid during the calls, which the kernel copies it in.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
    }
}

/// A read of 4 KiB and a write of 4 KiB, asked, answered and heard of by polling alone.
fn round(pair: &mut Pair, connection: Connection, region: &Region) {
    let landing = Landing::Place(region.slice(0, 4096).unwrap().into());
    let data = region.slice(4096, 4096).unwrap().into();
    let request = OutgoingRequest { data, landing, ..OutgoingRequest::new(b"question", 1) };
    pair.client.request(connection, request).unwrap();
    pair.client.flush().unwrap();
    let mut request = loop {
        pair.server.wait(Some(Duration::ZERO)).unwrap();
        if let Some(Event::Request(request)) = pair.server.next_event() {
            break request;
        }
    };
    let data = request.take_data();
    let mut first = [0; 8];
    data.gather(0, &mut first);
    let mut buffer = pair.server.response_buffer(&request, 4096).unwrap();
    buffer.copy_from(0, &[first[0]; 4096]);
    pair.server.respond(request, OutgoingResponse { header: b"answer", data: buffer.into() }).unwrap();
    pair.server.flush().unwrap();
    loop {
        pair.client.wait(Some(Duration::ZERO)).unwrap();
        if let Some(Event::Response { outcome, .. }) = pair.client.next_event() {
            assert_eq!(outcome.unwrap().data.len(), 4096);
            break;
        }
    }
}

#[test]
fn shared_memory_needs_no_system_call() {
    if !clock_needs_no_call() {
        println!("this machine's clock is read by system calls");
        return;
    }
    watchdog();
    let (mut reader, writer) = std::io::pipe().unwrap();
    std::thread::spawn(move || {
        let mut pair = Pair::new(Fabric::shm());
        let (connection, _) = pair.connect();
        let region = Region::allocate(1 << 20, false).unwrap();
        // Everything that is made once is made.
        for _ in 0..2000 {
            round(&mut pair, connection, &region);
        }
        let forbidden = forbid_system_calls();
        for _ in 0..2000 {
            round(&mut pair, connection, &region);
        }
        // SAFETY: the byte is there, and the thread ends without unwinding: its values are left as they are.
        unsafe {
            libc::write(writer.as_raw_fd(), [u8::from(forbidden)].as_ptr().cast(), 1);
            libc::syscall(libc::SYS_exit, 0);
        }
    });
    let mut told = [0];
    reader.read_exact(&mut told).unwrap();
    if told == [0] {
        println!("seccomp is not to be had here: nothing was shown");
    }
}
