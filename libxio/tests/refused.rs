//! Where io_uring is refused, the error says so and what to change. The child process has a seccomp filter, as
//! containers have.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libxio::{Context, ContextOptions, Error, PinnedContext};
use std::process::Command;

/// Set in the child: the errno that its filter returns for io_uring_setup.
const ERRNO: &str = "XIO_TEST_REFUSED_ERRNO";

#[test]
fn a_refused_ring_is_an_error_that_says_what_to_change() {
    for (errno, name, advice) in [
        (libc::EPERM, "not permitted", "kernel.io_uring_disabled"),
        (libc::ENOSYS, "not implemented", "seccomp"),
        (libc::ENOMEM, "allocate memory", "ulimit -l"),
        (libc::EMFILE, "open files", "ulimit -n"),
    ] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child_is_refused", "--nocapture"])
            .env(ERRNO, errno.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).to_lowercase();
        assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
        for part in ["io_uring is refused", name, advice] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }
}

/// Runs in the child only.
#[test]
fn the_child_is_refused() {
    let Some(errno) = std::env::var(ERRNO).ok().and_then(|text| text.parse().ok()) else { return };
    refuse_io_uring(errno);
    for refused in
        [Context::new(ContextOptions::default()).err(), PinnedContext::new(ContextOptions::default()).err()]
    {
        let refused = refused.unwrap();
        assert!(matches!(refused, Error::RingRefused { .. }), "{refused:?}");
        assert_eq!(refused.errno(), libc::ENOSYS);
        println!("{refused}");
    }
}

/// From now on io_uring_setup fails with this errno in this thread.
fn refuse_io_uring(errno: i32) {
    const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
    const ERRNO: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        // The system call's number is the first word.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_io_uring_setup as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live through the call; no other argument is a pointer.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(installed, "no seccomp filter: {}", std::io::Error::last_os_error());
}
