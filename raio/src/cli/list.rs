//! `raio ls`.

use super::failure::{Failure, connect};
use super::stat::show_mode;
use super::{Common, Done, say, size};
use raio::proto::{Attributes, ExportInfo, ExportKind, FileKind};
use raio::{Client, Entry};
use serde_json::{Value, json};

/// Arguments of `raio ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A directory or file; without a path the exports of the server
    uri: String,
    /// Show mode, size and time too
    #[arg(short, long)]
    long: bool,
}

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Done {
    let (uri, client) = connect(&arguments.uri, &common.client_options())?;
    let path = uri.resource();
    let mut entries = if path == "/" {
        let info = client.info().map_err(Failure::at(&uri))?;
        info.exports.into_iter().map(export_entry).collect()
    } else {
        entries(&client, path).map_err(Failure::at(&uri))?
    };
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    if common.json() {
        return say::json(&entries.iter().map(describe).collect());
    }
    let mut text = String::new();
    for entry in &entries {
        let slash = if entry.kind() == FileKind::Directory { "/" } else { "" };
        if arguments.long {
            let time = size::show_time(entry.modified_ns);
            text.push_str(&format!("{} {:>15} {time} ", show_mode(entry.mode), entry.size));
        }
        text.push_str(&format!("{}{slash}\n", say::name(&entry.name)));
    }
    say::bytes(text.as_bytes())
}

/// A directory's entries, or the one of a file.
fn entries(client: &Client, path: &str) -> raio::Result<Vec<Entry>> {
    match client.list(path) {
        Err(error) if error.errno() == libc::ENOTDIR => {
            let Attributes { mode, size, modified_ns, .. } = client.stat(path)?;
            let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
            Ok(vec![Entry { name: name.into(), mode, size, modified_ns }])
        }
        other => other,
    }
}

fn export_entry(export: ExportInfo) -> Entry {
    let kind = match export.kind {
        ExportKind::Directory => libc::S_IFDIR,
        ExportKind::BlockDevice => libc::S_IFBLK,
        ExportKind::Null => libc::S_IFCHR,
        _ => libc::S_IFREG,
    };
    let permissions = if export.read_only { 0o444 } else { 0o666 };
    let name = export.path.strip_prefix(b"/").unwrap_or(&export.path).to_vec();
    Entry { name, mode: kind | permissions, size: export.size, modified_ns: 0 }
}

fn describe(entry: &Entry) -> Value {
    json!({
        "name": String::from_utf8_lossy(&entry.name),
        "kind": entry.kind().name(),
        "size": entry.size,
        "mode": entry.mode & 0o7777,
        "modified_ns": entry.modified_ns,
    })
}
