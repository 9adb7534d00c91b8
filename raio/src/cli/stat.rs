//! `raio stat`.

use super::failure::{Failure, connect};
use super::{Common, Done, say, size};
use raio::proto::Attributes;
use serde_json::{Value, json};

/// Arguments of `raio stat`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file
    uri: String,
}

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Done {
    let (uri, client) = connect(&arguments.uri, &common.client_options())?;
    let attributes = client.stat(uri.resource()).map_err(Failure::at(&uri))?;
    if common.json() {
        return say::json(&describe(uri.resource(), &attributes));
    }
    let Attributes { size, mode, .. } = attributes;
    let direct = match (attributes.memory_alignment, attributes.offset_alignment) {
        (0, _) | (_, 0) => "not possible".to_owned(),
        (memory, offset) => format!("offsets and lengths of {offset}, server memory of {memory} bytes"),
    };
    let lines = [
        ("path", uri.resource().to_owned()),
        ("kind", attributes.kind().name().to_owned()),
        ("size", format!("{size} bytes ({})", size::show_bytes(size))),
        ("storage", size::show_bytes(attributes.blocks.saturating_mul(512))),
        ("mode", format!("{} ({:04o})", show_mode(mode), mode & 0o7777)),
        (
            "owner",
            format!("user {}, group {}, {} name(s)", attributes.user, attributes.group, attributes.links),
        ),
        (
            "identity",
            format!(
                "device {}, inode {}, generation {}",
                attributes.device, attributes.inode, attributes.generation
            ),
        ),
        ("modified", format!("{} UTC", size::show_time(attributes.modified_ns))),
        ("accessed", format!("{} UTC", size::show_time(attributes.accessed_ns))),
        (
            "I/O",
            format!(
                "at most {}, preferably {}, logical block {}",
                size::show_bytes(attributes.io_bytes_max.into()),
                size::show_bytes(attributes.preferred_io_bytes.into()),
                attributes.logical_block_bytes
            ),
        ),
        ("direct I/O", direct),
        ("writable", if attributes.read_only { "no, the export is read-only" } else { "yes" }.to_owned()),
    ];
    for (name, value) in lines {
        say::line(format!("{name:>10}: {value}"))?;
    }
    Ok(())
}

fn describe(path: &str, attributes: &Attributes) -> Value {
    json!({
        "path": path,
        "kind": attributes.kind().name(),
        "size": attributes.size,
        "blocks": attributes.blocks,
        "mode": attributes.mode & 0o7777,
        "user": attributes.user,
        "group": attributes.group,
        "links": attributes.links,
        "device": attributes.device,
        "inode": attributes.inode,
        "generation": attributes.generation,
        "special_device": attributes.special_device,
        "modified_ns": attributes.modified_ns,
        "accessed_ns": attributes.accessed_ns,
        "changed_ns": attributes.changed_ns,
        "block_bytes": attributes.block_bytes,
        "logical_block_bytes": attributes.logical_block_bytes,
        "memory_alignment": attributes.memory_alignment,
        "offset_alignment": attributes.offset_alignment,
        "preferred_io_bytes": attributes.preferred_io_bytes,
        "io_bytes_max": attributes.io_bytes_max,
        "read_only": attributes.read_only,
    })
}

/// Type and permissions as `ls -l` shows them.
pub(crate) fn show_mode(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFBLK => 'b',
        libc::S_IFCHR => 'c',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        assert_eq!(show_mode(libc::S_IFREG | 0o644), "-rw-r--r--");
        assert_eq!(show_mode(libc::S_IFDIR | 0o1777), "drwxrwxrwt");
        assert_eq!(show_mode(libc::S_IFREG | 0o4711), "-rws--x--x");
        assert_eq!(show_mode(libc::S_IFREG | 0o2600), "-rw---S---");
    }
}
