//! Building the workspace.

use crate::{Result, child, root};
use std::process::Command;
use std::time::Duration;

/// A release build on two busy cores takes a few minutes.
const BUILD_TIME: Duration = Duration::from_secs(3600);

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
    child::run(&mut cargo(&["build", "--release", "--quiet"]), BUILD_TIME)
}
