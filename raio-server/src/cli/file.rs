//! The configuration file: TOML, with a table for each export.

use raio_server::{Config, Error, ExportConfig, ExportTarget, NULL_BYTES, Result, parse_listen, parse_size};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file with every setting at its default, for people to start from.
pub(super) const EXAMPLE: &str = r#"# Configuration of raio-server. Lines that begin with # show the defaults.

# Addresses to listen on; port 0 takes a free one. "shm:///run/raio.sock" is a socket by which clients on this machine
# share memory with the server: those of its own user and root, with ?allow=1000,1001 or ?allow=any others too.
listen = ["tcp://127.0.0.1:5555"]

# Listen beyond this machine, though everybody who reaches the server may use its exports.
# insecure = false

# Worker threads; 0: one for each CPU.
# threads = 0

# CPUs that the workers are bound to in turn; none: wherever the system likes.
# cpus = []

# Longest time in microseconds that a worker polls before it sleeps; 0 never polls.
# polling_us = 100

# Seconds of silence after which a client is given up.
# keepalive = 10

# Seconds for the data of a write to arrive whole, beside one for each 64 KiB, before the client is given up. With less
# than a quarter of the memory free it is the time of keepalive.
# lease = 600

# Seconds that requests in progress are given when the server stops.
# drain = 10

# Connections at a time for each address, files that one of them may have open, and its requests outstanding.
# max_connections = 16384
# max_open_files = 1024
# max_requests = 1024

# Greatest length of one read or write, and memory for data of each worker.
# max_io = "4M"
# memory = "1G"

# Memory that is mapped of each client by shared memory; what lies beyond it is copied. And of all clients together,
# by default half of the machine's memory, or of what the server's memory group may use.
# shared_memory = "16G"
# shared_memory_total = "8G"

# Memory of clients by shared memory that each worker pins for O_DIRECT, which saves processor time with long operations.
# pinned_memory = "256M"

# Copy reads of files in the page cache out of mappings of them, which saves a system call for each read.
# mapped_reads = true

# Memory that is registered with RDMA devices beside receive buffers; what lies beyond it is copied. By default half of what
# may be locked (LimitMEMLOCK= of a service), no limit where that has none.
# rdma_memory = "32M"

# Exports: clients reach this one as /data. SIGHUP reads them again.
[exports.data]
path = "/srv/data"
# read_only = false

# Without a name an export stands under its own path: clients reach this one as /srv/archive.
# [[own_path]]
# path = "/srv/archive"
# read_only = true

# Memory of the server, gone with it; and zeros that keep nothing.
# [exports.scratch]
# memory = "1G"
# [exports.null]
# null = "4G"
"#;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Contents {
    listen: Vec<String>,
    insecure: bool,
    threads: Option<usize>,
    cpus: Vec<usize>,
    polling_us: Option<u64>,
    keepalive: Option<u64>,
    lease: Option<u64>,
    drain: Option<u64>,
    max_connections: Option<usize>,
    max_open_files: Option<usize>,
    max_requests: Option<u16>,
    max_io: Option<Size>,
    memory: Option<Size>,
    shared_memory: Option<Size>,
    shared_memory_total: Option<Size>,
    pinned_memory: Option<Size>,
    mapped_reads: Option<bool>,
    rdma_memory: Option<Size>,
    exports: BTreeMap<String, Export>,
    own_path: Vec<Export>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    path: Option<PathBuf>,
    null: Option<Size>,
    memory: Option<Size>,
    #[serde(default)]
    read_only: bool,
}

/// A number of bytes, or a text like "4M".
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "toml::Value")]
struct Size(u64);

impl TryFrom<toml::Value> for Size {
    type Error = String;

    fn try_from(value: toml::Value) -> std::result::Result<Size, String> {
        let size = match &value {
            toml::Value::Integer(number) => u64::try_from(*number).ok(),
            toml::Value::String(text) => parse_size(text),
            _ => None,
        };
        size.map(Size).ok_or_else(|| format!("{value} is no size: write 4096, \"64k\" or \"1G\""))
    }
}

/// Reads a configuration file.
///
/// # Errors
/// [`Error::File`] with the place in the file, or what is wrong with an export or address.
pub(super) fn read(path: &Path) -> Result<Config> {
    let failed = |reason| Error::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|cause| failed(cause.to_string()))?;
    parse(&text).map_err(|error| match error {
        Error::Usage(reason) => failed(reason),
        other => failed(other.to_string()),
    })
}

fn parse(text: &str) -> Result<Config> {
    let contents: Contents = toml::from_str(text).map_err(|cause| Error::Usage(cause.to_string()))?;
    let mut config = Config::default();
    for address in &contents.listen {
        config.listen.push(parse_listen(address)?);
    }
    config.insecure = contents.insecure;
    config.cpus = contents.cpus;
    set(&mut config.threads, contents.threads);
    set(&mut config.polling_timeout, contents.polling_us.map(Duration::from_micros));
    set(&mut config.keepalive, contents.keepalive.map(Duration::from_secs));
    set(&mut config.lease, contents.lease.map(Duration::from_secs));
    set(&mut config.drain_timeout, contents.drain.map(Duration::from_secs));
    set(&mut config.connections_max, contents.max_connections);
    set(&mut config.open_files_max, contents.max_open_files);
    set(&mut config.requests_max, contents.max_requests);
    // What does not fit is above its limit, which `Config::check` tells.
    set(
        &mut config.io_bytes_max,
        contents.max_io.map(|Size(bytes)| u32::try_from(bytes).unwrap_or(u32::MAX)),
    );
    let memory = contents.memory.map(|Size(bytes)| usize::try_from(bytes).unwrap_or(usize::MAX));
    set(&mut config.memory_bytes_max, memory);
    set(&mut config.shared_bytes_max, contents.shared_memory.map(|Size(bytes)| bytes));
    set(&mut config.pinned_bytes_max, contents.pinned_memory.map(|Size(bytes)| bytes));
    set(&mut config.mapped_reads, contents.mapped_reads);
    set(&mut config.rdma_bytes_max, contents.rdma_memory.map(|Size(bytes)| Some(bytes)));
    set(&mut config.shared_total_bytes_max, contents.shared_memory_total.map(|Size(bytes)| bytes));
    for (name, export) in contents.exports {
        let target = target(&name, &export)?;
        config.exports.push(ExportConfig::named(&name, target, export.read_only)?);
    }
    for export in contents.own_path {
        let ExportTarget::Path(path) = target("own_path", &export)? else {
            return Err(Error::Usage("own_path: only a path can stand under itself".to_owned()));
        };
        config.exports.push(ExportConfig::own_path(&path, export.read_only)?);
    }
    Ok(config)
}

fn target(name: &str, export: &Export) -> Result<ExportTarget> {
    match export {
        Export { path: Some(path), null: None, memory: None, .. } => Ok(ExportTarget::Path(path.clone())),
        Export { path: None, null: Some(Size(size)), memory: None, .. } => {
            Ok(ExportTarget::Null { size: if *size == 0 { NULL_BYTES } else { *size } })
        }
        Export { path: None, null: None, memory: Some(Size(size)), .. } => {
            Ok(ExportTarget::Memory { size: *size })
        }
        _ => Err(Error::Usage(format!("export {name}: give one of path, null and memory"))),
    }
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_the_default_with_an_export() {
        let config = parse(EXAMPLE).unwrap();
        assert_eq!(config.exports, [ExportConfig::parse("data=/srv/data").unwrap()]);
        assert_eq!(config.listen.len(), 1);
        // With every comment that sets something taken for what it says, too.
        let all: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.contains(" = ") || rest.starts_with('[') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let full = parse(&all).unwrap();
        let default = Config::default();
        assert_eq!(full.exports.len(), 4);
        assert_eq!((full.threads, full.io_bytes_max), (default.threads, default.io_bytes_max));
        assert_eq!((full.keepalive, full.drain_timeout), (default.keepalive, default.drain_timeout));
        assert_eq!(full.lease, default.lease);
        assert_eq!(
            (full.connections_max, full.requests_max),
            (default.connections_max, default.requests_max)
        );
        assert_eq!(
            (full.memory_bytes_max, full.open_files_max),
            (default.memory_bytes_max, default.open_files_max)
        );
        assert_eq!(full.shared_bytes_max, default.shared_bytes_max);
        assert_eq!(full.polling_timeout, default.polling_timeout);
        assert_eq!(full.mapped_reads, default.mapped_reads);
        assert!(!parse("mapped_reads = false").unwrap().mapped_reads);
        // What it is by default depends on the machine.
        assert_eq!((full.rdma_bytes_max, default.rdma_bytes_max), (Some(32 << 20), None));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, expected) in [
            ("thread = 1", "unknown field `thread`"),
            ("threads = \"x\"", "line 1"),
            ("max_io = \"big\"", "no size"),
            ("[exports.x]\nread_only = true", "export x: give one of"),
            ("[exports.x]\npath = \"/a\"\nnull = 1", "export x: give one of"),
            ("[[own_path]]\nnull = 1", "only a path"),
            ("[exports.\"a/b\"]\npath = \"/a\"", "a name has no slash"),
            ("listen = [\"x:y\"]", "the port"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
