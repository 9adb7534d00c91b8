//! Building the workspace.

use crate::{Result, child, root};
use serde_json::Value;
use std::path::{Path, PathBuf};
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

/// What is linted, documented and tested. Every command takes all of it and chooses among its targets, since cargo gives
/// the dependencies of other packages other features, and would build them once more.
pub(crate) const EVERYTHING: [&str; 5] =
    ["--workspace", "--exclude", "fio-engine", "--features", "raio/tokio"];

/// Builds what users run: the programs, and the library for C.
pub(crate) fn release() -> Result<()> {
    child::run(
        &mut cargo(&["build", "--release", "--lib", "--bin", "raio", "--bin", "raio-server"]),
        BUILD_TIME,
    )
}

/// Builds an integration test, and says where its program is.
pub(crate) fn test_program(name: &str) -> Result<PathBuf> {
    let mut build = cargo(&["test", "--no-run", "--quiet", "--message-format=json", "--test", name]);
    let listed = child::output(build.args(EVERYTHING), BUILD_TIME)?;
    let found = listed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let is_ours = line["target"]["name"] == name && line["target"]["kind"][0] == "test";
        line["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
    });
    found.ok_or_else(|| format!("cargo built no program for the test {name}"))
}

/// Builds the unit tests of a library, and says where their program is.
pub(crate) fn unit_tests(name: &str) -> Result<PathBuf> {
    let mut build = cargo(&["test", "--no-run", "--quiet", "--message-format=json", "--lib"]);
    let listed = child::output(build.args(EVERYTHING), BUILD_TIME)?;
    let found = listed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let is_ours = line["target"]["name"] == name && line["target"]["kind"][0] == "lib";
        line["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
    });
    found.ok_or_else(|| format!("cargo built no program for the unit tests of {name}"))
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
