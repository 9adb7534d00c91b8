//! `raio info --rdma`: the RDMA devices of this machine.

use super::failure::Failure;
use super::{Common, Done, say, size};
use libxio::transport::{RdmaDevice, RdmaPort, rdma_devices};
use serde_json::{Value, json};

pub(crate) fn run(common: &Common) -> Done {
    let devices = rdma_devices().map_err(Failure::no_rdma)?;
    if common.json() {
        return say::json(&json!({ "devices": devices.iter().map(describe).collect::<Vec<_>>() }));
    }
    for device in &devices {
        say::line(device.name.clone())?;
        let firmware = if device.firmware.is_empty() { "none" } else { &device.firmware };
        let shared = match device.shared_receives_max {
            0 => "none".to_owned(),
            messages => format!("up to {messages} messages"),
        };
        let lines = [
            ("firmware", firmware.to_owned()),
            (
                "queue pairs",
                format!("{}, {} work requests each", device.queue_pairs_max, device.work_requests_max),
            ),
            ("pieces", format!("{} in a work request", device.pieces_max)),
            ("reads", format!("{} at a time on a connection", device.reads_served_max)),
            ("registrations", device.registrations_max.to_string()),
            ("shared receives", shared),
        ];
        for (name, value) in lines {
            say::line(format!("{name:>17}: {value}"))?;
        }
        for port in &device.ports {
            let RdmaPort { number, state, link_layer, mtu, message_bytes_max, addresses, .. } = port;
            let longest = size::show_bytes(u64::from(*message_bytes_max));
            let text = format!("{state}, {link_layer}, packets of {mtu} B, messages up to {longest}");
            say::line(format!("{:>17}: {text}", format!("port {number}")))?;
            for address in addresses {
                say::line(format!("{:>19}{address}", ""))?;
            }
        }
    }
    Ok(())
}

fn describe(device: &RdmaDevice) -> Value {
    let port = |port: &RdmaPort| {
        json!({
            "number": port.number,
            "state": port.state,
            "link_layer": port.link_layer,
            "mtu": port.mtu,
            "message_bytes_max": port.message_bytes_max,
            "addresses": port.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    json!({
        "name": device.name,
        "firmware": device.firmware,
        "queue_pairs_max": device.queue_pairs_max,
        "work_requests_max": device.work_requests_max,
        "pieces_max": device.pieces_max,
        "registrations_max": device.registrations_max,
        "registration_bytes_max": device.registration_bytes_max,
        "shared_receives_max": device.shared_receives_max,
        "reads_served_max": device.reads_served_max,
        "ports": device.ports.iter().map(port).collect::<Vec<_>>(),
    })
}
