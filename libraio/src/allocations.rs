//! Once warm, submitting, waiting and releasing allocate nothing. The functions of a shared library have an allocator of
//! their own, so they are counted from inside.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../raio/tests/counting/mod.rs"]
mod counting;
#[path = "../../raio/tests/fake/mod.rs"]
mod fake;

use crate::{ContextToken, Event, Iocb, IocbCommon};
use counting::{once_warm, serve};
use fake::Fake;
use std::ptr::null_mut;

/// A session through the C interface with an open file: handle and context.
fn c_session(fake: &Fake, depth: i32) -> (i32, ContextToken) {
    let uri: libxio::Uri = fake.uri.parse().unwrap();
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: uri.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let mut context = null_mut();
    // SAFETY: the address is one, of the length that is said; the texts end with NUL; there is room for the context.
    unsafe {
        let length = size_of_val(&address) as libc::socklen_t;
        let fd = crate::raio_start(c"tcp".as_ptr(), (&raw const address).cast(), length);
        assert!(fd >= 10, "{fd}");
        assert_eq!(crate::raio_setup(fd, depth, &raw mut context), 0);
        assert_eq!(crate::raio_open(fd, c"/x".as_ptr(), libc::O_RDWR), 0);
        (fd, context)
    }
}

#[test]
fn submit_getevents_and_release_of_the_c_interface() {
    const DEPTH: usize = 32;
    let fake = serve();
    let (fd, context) = c_session(&fake, DEPTH as i32);
    let mut memory = vec![0_u8; 4096];
    // Reads into a buffer of the caller's, reads into one of the library's, writes.
    let requests = [(0, memory.as_mut_ptr()), (0, null_mut()), (1, memory.as_mut_ptr())];
    let iocb = |index: usize| {
        let (opcode, buffer) = requests[index % requests.len()];
        let (nbytes, offset, mr) = (4096, index as i64 * 4096, null_mut());
        let c = IocbCommon { buf: buffer.cast(), nbytes, offset, mr, flags: 0, resfd: 0 };
        Iocb { data: null_mut(), key: 0, raio_fildes: fd, raio_lio_opcode: opcode, pad: 0, c }
    };
    let empty = Event { data: null_mut(), obj: null_mut(), handle: 0, res: 0, res2: 0 };
    let (mut iocbs, mut events) = ([0; DEPTH].map(|_| iocb(0)), [empty; DEPTH]);
    let allocations = once_warm(400, |_| {
        for (index, place) in iocbs.iter_mut().enumerate() {
            *place = iocb(index);
        }
        let all = iocbs.each_mut().map(std::ptr::from_mut);
        let depth = DEPTH as libc::c_long;
        // SAFETY: the iocbs and their memory stay until their events are there, and there is room for all events.
        unsafe {
            assert_eq!(crate::raio_submit(context, depth, all.as_ptr()), DEPTH as i32);
            let got = crate::raio_getevents(context, depth, depth, events.as_mut_ptr(), null_mut());
            assert_eq!(got, DEPTH as i32);
            assert_eq!(crate::raio_release(context, depth, events.as_ptr()), 0);
        }
        assert!(events.iter().all(|event| event.res == 4096));
    });
    assert_eq!(allocations, 0);
    // Nothing is in flight.
    assert_eq!(crate::raio_stop(fd), 0);
}
