//! Building the workspace.

use crate::{Result, child, root};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A release build on two busy cores takes a few minutes.
const BUILD_TIME: Duration = Duration::from_secs(3600);

/// Time for a question to a program.
const QUERY_TIME: Duration = Duration::from_secs(60);

/// `cargo` in the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    // What `cargo run` sets for xtask must not reach another cargo, or it builds things anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Builds what users run: the binaries and libraries in target/release.
pub(crate) fn release() -> Result<()> {
    child::run(&mut cargo(&["build", "--release"]), BUILD_TIME)
}

/// Builds certain binaries of the release, with the same settings.
pub(crate) fn programs(names: &[&str]) -> Result<()> {
    let mut build = cargo(&["build", "--release"]);
    for name in names {
        build.args(["--bin", name]);
    }
    child::run(&mut build, BUILD_TIME)
}

/// Holds a library to what it exports: names that begin with one of these. Release builds are looked at, since link-time
/// optimization lets names of other crates through that other builds hide.
///
/// # Errors
/// The names that have no place there.
pub(crate) fn check_exports(library: &Path, allowed: &[&str]) -> Result<()> {
    let listed = child::output(Command::new("nm").args(["-D", "--defined-only"]).arg(library), QUERY_TIME)?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().nth(2));
    let others: Vec<_> = names.filter(|name| !allowed.iter().any(|start| name.starts_with(start))).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(format!("{} exports what is none of its interface: {}", library.display(), others.join(", ")))
}
