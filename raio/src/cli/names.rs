//! `raio rm` and `raio mv`.

use super::failure::{Failure, connect};
use super::{Common, Done, place, say};
use serde_json::json;

/// Arguments of `raio rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArguments {
    /// The files
    #[arg(required = true)]
    uris: Vec<String>,
    /// Remove empty directories instead of files
    #[arg(short, long)]
    dir: bool,
}

/// Arguments of `raio mv`.
#[derive(Debug, clap::Args)]
pub(crate) struct MoveArguments {
    /// The file
    from: String,
    /// Its new name: a uri on the same server, or a path at that server
    to: String,
    /// Fail if the new name exists
    #[arg(short, long)]
    no_replace: bool,
}

pub(crate) fn remove(arguments: &RemoveArguments, common: &Common) -> Done {
    for text in &arguments.uris {
        let (uri, client) = connect(text, &common.client_options())?;
        let path = uri.resource();
        let removed = if arguments.dir { client.remove_directory(path) } else { client.unlink(path) };
        removed.map_err(Failure::at(&uri))?;
    }
    if common.json() { say::json(&json!({ "removed": arguments.uris })) } else { Ok(()) }
}

pub(crate) fn rename(arguments: &MoveArguments, common: &Common) -> Done {
    let from = place::remote(&arguments.from)?;
    let to = if arguments.to.contains("://") {
        let to = place::remote(&arguments.to)?;
        if (to.host(), to.port()) != (from.host(), from.port()) {
            let advice = "raio cp copies between servers".to_owned();
            return Err(Failure::usage(format!("{to}: it is on another server than {from}"), Some(advice)));
        }
        to.resource().to_owned()
    } else {
        arguments.to.clone()
    };
    let (uri, client) = connect(&arguments.from, &common.client_options())?;
    client.rename(uri.resource(), &to, arguments.no_replace).map_err(Failure::at(&uri))?;
    if common.json() { say::json(&json!({ "from": uri.resource(), "to": to })) } else { Ok(()) }
}
