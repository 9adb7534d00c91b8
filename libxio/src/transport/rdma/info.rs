//! Asks the devices of this machine for what they can do.

use super::verbs::{Device, last_error};
use super::{SCHEME, what_is_missing};
use crate::transport::{RdmaDevice, RdmaPort};
use crate::{Error, Result};
use rdma_sys as sys;
use std::ffi::c_int;
use std::net::IpAddr;

/// Most entries of a port's address table that are looked at.
const ADDRESSES_MAX: c_int = 64;

pub(crate) fn devices() -> Result<Vec<RdmaDevice>> {
    let missing = |cause| Error::TransportUnavailable { scheme: SCHEME, reason: what_is_missing(&cause) };
    let mut count = 0;
    // SAFETY: the call fills the count.
    let list = unsafe { sys::ibv_get_device_list(&raw mut count) };
    if list.is_null() {
        return Err(missing(last_error()));
    }
    let mut found = Vec::new();
    for at in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the list has `count` entries, and lives until it is freed below.
        let context = unsafe { sys::ibv_open_device(*list.add(at)) };
        // SAFETY: just opened, and closed only after the last use.
        if let Some(device) = unsafe { Device::from_raw(context) } {
            if let Ok(described) = describe(device) {
                found.push(described);
            }
            // SAFETY: opened above, closed once.
            unsafe { sys::ibv_close_device(context) };
        }
    }
    // SAFETY: freed once, and not used afterwards.
    unsafe { sys::ibv_free_device_list(list) };
    if found.is_empty() {
        return Err(missing(std::io::Error::from_raw_os_error(libc::ENODEV)));
    }
    Ok(found)
}

fn describe(device: Device) -> std::io::Result<RdmaDevice> {
    let attributes = device.attributes()?;
    let positive = |value: c_int| u32::try_from(value).unwrap_or(0);
    // Characters of ASCII, whose sign says nothing.
    let firmware: Vec<u8> =
        attributes.fw_ver.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    Ok(RdmaDevice {
        name: device.name(),
        firmware: String::from_utf8_lossy(&firmware).into_owned(),
        queue_pairs_max: positive(attributes.max_qp),
        work_requests_max: positive(attributes.max_qp_wr),
        pieces_max: positive(attributes.max_sge),
        registrations_max: positive(attributes.max_mr),
        registration_bytes_max: attributes.max_mr_size,
        shared_receives_max: if attributes.max_srq > 0 { positive(attributes.max_srq_wr) } else { 0 },
        reads_served_max: positive(attributes.max_qp_rd_atom),
        ports: (1..=attributes.phys_port_cnt).filter_map(|number| port(device, number).ok()).collect(),
    })
}

fn port(device: Device, number: u8) -> std::io::Result<RdmaPort> {
    use sys::ibv_port_state as states;
    /// `IBV_LINK_LAYER_ETHERNET`.
    const ETHERNET: u8 = 2;
    let attributes = device.port(number)?;
    let state = match attributes.state {
        states::IBV_PORT_DOWN => "down",
        states::IBV_PORT_INIT => "initialized",
        states::IBV_PORT_ARMED => "armed",
        states::IBV_PORT_ACTIVE => "active",
        _ => "unknown",
    };
    let mut addresses = Vec::new();
    for index in 0..attributes.gid_tbl_len.min(ADDRESSES_MAX) {
        // SAFETY: the device is open, and the call fills the entry; all-zero is a valid one.
        let (result, gid) = unsafe {
            let mut gid: sys::ibv_gid = std::mem::zeroed();
            (sys::ibv_query_gid(device.as_ptr(), number, index, &raw mut gid), gid.raw)
        };
        if result != 0 {
            break;
        }
        // An IPv4 address is mapped into IPv6; on Ethernet the table holds the interface's addresses.
        let address = IpAddr::from(gid).to_canonical();
        let is_used = gid != [0; 16] && attributes.link_layer == ETHERNET;
        if is_used && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(RdmaPort {
        number,
        is_active: attributes.state == states::IBV_PORT_ACTIVE,
        state,
        link_layer: if attributes.link_layer == ETHERNET { "Ethernet" } else { "InfiniBand" },
        // The enum counts 256, 512, ... from 1.
        mtu: 128_u32.checked_shl(attributes.active_mtu).unwrap_or(0),
        message_bytes_max: attributes.max_msg_sz,
        addresses,
    })
}
