//! `raio info`.

use super::failure::{Failure, connect};
use super::{Common, Done, say, size};
use raio::proto::{ExportInfo, ServerInfo};
use serde_json::{Value, json};

/// Arguments of `raio info`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The server
    #[arg(required_unless_present = "rdma")]
    uri: Option<String>,
    /// List this machine's RDMA devices, their ports and limits
    #[arg(long, conflicts_with = "uri")]
    rdma: bool,
}

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Done {
    let Some(uri) = &arguments.uri else { return super::rdma::run(common) };
    let (uri, client) = connect(uri, &common.client_options())?;
    let info = client.info().map_err(Failure::at(&uri))?;
    let (transport, why) = client.transport();
    if common.json() {
        let mut description = describe(&info);
        description["transport"] = json!(transport);
        description["transport_reason"] = json!(why);
        return say::json(&description);
    }
    let ServerInfo { name, version, protocol, workers, io_bytes_max, uptime_ms, .. } = &info;
    let uptime = uptime_ms / 1000;
    let lines = [
        ("server", format!("{name} {version}, file protocol {protocol}, {workers} worker(s)")),
        ("transport", format!("{transport} ({why})")),
        ("up for", format!("{} h {} min {} s", uptime / 3600, uptime / 60 % 60, uptime % 60)),
        ("connections", format!("{} now, {} in all", info.connections, info.connections_total)),
        ("open files", info.open_files.to_string()),
        ("requests", info.requests.to_string()),
        ("read", size::show_bytes(info.bytes_read)),
        ("mapped", format!("{} reads without a system call", info.reads_mapped)),
        ("written", size::show_bytes(info.bytes_written)),
        ("largest I/O", size::show_bytes(u64::from(*io_bytes_max))),
        ("exports", info.exports.len().to_string()),
    ];
    for (name, value) in lines {
        say::line(format!("{name:>11}: {value}"))?;
    }
    for ExportInfo { path, kind, read_only, size } in &info.exports {
        let access = if *read_only { "read-only" } else { "read-write" };
        let size = if *size > 0 { format!(", {}", size::show_bytes(*size)) } else { String::new() };
        say::line(format!("{:>13}{}  {}, {access}{size}", "", say::name(path), kind.name()))?;
    }
    Ok(())
}

fn describe(info: &ServerInfo) -> Value {
    let export = |export: &ExportInfo| {
        json!({
            "path": String::from_utf8_lossy(&export.path),
            "kind": export.kind.name(),
            "read_only": export.read_only,
            "size": export.size,
        })
    };
    json!({
        "name": info.name,
        "version": info.version,
        "protocol": info.protocol,
        "workers": info.workers,
        "io_bytes_max": info.io_bytes_max,
        "uptime_ms": info.uptime_ms,
        "connections": info.connections,
        "connections_total": info.connections_total,
        "open_files": info.open_files,
        "requests": info.requests,
        "bytes_read": info.bytes_read,
        "bytes_written": info.bytes_written,
        "reads_mapped": info.reads_mapped,
        "exports": info.exports.iter().map(export).collect::<Vec<_>>(),
    })
}
