//! From a transport's name and a socket address to a uri.

use crate::errno::Errno;
use libxio::Uri;
use std::ffi::{CStr, c_char};
use std::fmt::Write;
use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name of a transport in bytes.
const TRANSPORT_BYTES_MAX: usize = 16;

/// The server that a call of `raio_start` means.
///
/// # Safety
/// `transport` is NULL or a string, `address` is NULL or valid for `length` bytes.
pub(crate) unsafe fn uri(
    transport: *const c_char,
    address: *const libc::sockaddr,
    length: libc::socklen_t,
) -> Result<Uri, Errno> {
    if transport.is_null() || address.is_null() {
        return Err(Errno::NULL);
    }
    // SAFETY: the caller promises a string.
    let transport = unsafe { CStr::from_ptr(transport) }.to_str().map_err(|_| Errno::TRANSPORT)?;
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if transport.is_empty() || transport.len() > TRANSPORT_BYTES_MAX || !transport.bytes().all(letters) {
        return Err(Errno::TRANSPORT);
    }
    if (length as usize) < size_of::<libc::sa_family_t>() {
        return Err(Errno::INVALID);
    }
    // SAFETY: the family stands first in every address, and `length` bytes are valid.
    let family = unsafe { address.cast::<libc::sa_family_t>().read_unaligned() };
    let holds = |bytes: usize| if (length as usize) < bytes { Err(Errno::INVALID) } else { Ok(()) };
    let host_and_port = match i32::from(family) {
        libc::AF_INET => {
            holds(size_of::<libc::sockaddr_in>())?;
            // SAFETY: the address is long enough for its family.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            let host = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).to_string();
            (host, u16::from_be(address.sin_port))
        }
        libc::AF_INET6 => {
            holds(size_of::<libc::sockaddr_in6>())?;
            // SAFETY: the address is long enough for its family.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            let mut host = Ipv6Addr::from(address.sin6_addr.s6_addr).to_string();
            if address.sin6_scope_id != 0 {
                let _ = write!(host, "%{}", address.sin6_scope_id);
            }
            (host, u16::from_be(address.sin6_port))
        }
        libc::AF_UNIX => {
            let room = (length as usize).min(size_of::<libc::sockaddr_un>());
            let start = offset_of!(libc::sockaddr_un, sun_path);
            // SAFETY: `room` bytes of the address are valid, and nobody writes them during this call.
            let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), room) };
            return unix_uri(transport, bytes.get(start..).unwrap_or_default());
        }
        _ => return Err(Errno::FAMILY),
    };
    if transport == "shm" {
        return Err(Errno::FAMILY);
    }
    let (host, port) = host_and_port;
    Ok(Uri::new(scheme(transport), &host, Some(port), "/"))
}

/// "auto" is the scheme that takes the best transport which both sides have.
fn scheme(transport: &str) -> &str {
    if transport == "auto" { "raio" } else { transport }
}

/// A socket in the file system: that is shared memory.
fn unix_uri(transport: &str, path: &[u8]) -> Result<Uri, Errno> {
    if !matches!(transport, "shm" | "auto") {
        return Err(Errno::FAMILY);
    }
    let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
    if end == 0 {
        // An abstract or unnamed socket has no permissions that could protect it.
        return Err(Errno::INVALID);
    }
    let mut text = String::from("shm:///?socket=");
    for byte in &path[..end] {
        let _ = write!(text, "%{byte:02X}");
    }
    text.parse().map_err(|_| Errno::INVALID)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in4() -> libc::sockaddr_in {
        libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 5555_u16.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
            sin_zero: [0; 8],
        }
    }

    fn call<T>(transport: &CStr, address: &T, length: usize) -> Result<String, Errno> {
        let address = std::ptr::from_ref(address).cast();
        // SAFETY: the address is a valid reference of at least `length` bytes.
        unsafe { uri(transport.as_ptr(), address, length as libc::socklen_t) }.map(|uri| uri.to_string())
    }

    #[test]
    fn addresses_become_uris() {
        let length = size_of::<libc::sockaddr_in>();
        assert_eq!(call(c"tcp", &in4(), length).unwrap(), "tcp://127.0.0.1:5555/");
        assert_eq!(call(c"auto", &in4(), length).unwrap(), "raio://127.0.0.1:5555/");
        assert_eq!(call(c"rdma", &in4(), length + 100).unwrap(), "rdma://127.0.0.1:5555/");
        let mut in6 = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: 80_u16.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: Ipv6Addr::LOCALHOST.octets() },
            sin6_scope_id: 0,
        };
        assert_eq!(call(c"tcp", &in6, size_of_val(&in6)).unwrap(), "tcp://[::1]:80/");
        in6.sin6_scope_id = 2;
        assert_eq!(call(c"tcp", &in6, size_of_val(&in6)).unwrap(), "tcp://[::1%2]:80/");
        let mut un = libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
        for (at, byte) in b"/run/raio sock".iter().enumerate() {
            un.sun_path[at] = *byte as c_char;
        }
        for transport in [c"shm", c"auto"] {
            assert_eq!(call(transport, &un, size_of_val(&un)).unwrap(), "shm:///?socket=/run/raio%20sock");
        }
        assert_eq!(call(c"shm", &un, 2), Err(Errno::INVALID));
        assert_eq!(call(c"tcp", &un, size_of_val(&un)), Err(Errno::FAMILY));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let length = size_of::<libc::sockaddr_in>();
        assert_eq!(call(c"tcp", &in4(), length - 1), Err(Errno::INVALID));
        assert_eq!(call(c"tcp", &in4(), 1), Err(Errno::INVALID));
        assert_eq!(call(c"shm", &in4(), length), Err(Errno::FAMILY));
        for transport in [c"", c"TCP", c"tcp://", c"a transport with a long name", c"\xff"] {
            assert_eq!(call(transport, &in4(), length), Err(Errno::TRANSPORT), "{transport:?}");
        }
        let packet = libc::sockaddr_in { sin_family: libc::AF_PACKET as libc::sa_family_t, ..in4() };
        assert_eq!(call(c"tcp", &packet, length), Err(Errno::FAMILY));
        // SAFETY: NULL is allowed.
        unsafe {
            assert_eq!(uri(std::ptr::null(), (&raw const packet).cast(), 16).unwrap_err(), Errno::NULL);
            assert_eq!(uri(c"tcp".as_ptr(), std::ptr::null(), 16).unwrap_err(), Errno::NULL);
        }
    }
}
