//! The tests that need RDMA devices, in the virtual machine of `cargo xtask rdma`: the conformance suite, what an
//! operation costs, cut connections, the commands, C programs, fio, and a comparison with perftest. What they run is
//! built here, on the outside; `xtask/rdma/tests` runs it inside, step by step.

use crate::compile::cargo;
use crate::{Result, child, compile, fio, rdma, root};
use serde_json::Value;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What the steps in the virtual machine need besides [`rdma::PACKAGES`].
pub(crate) const PACKAGES: &[&str] = &["gcc", "ibverbs-providers", "librdmacm1", "perftest"];

/// Builds on two busy cores.
const BUILD_TIME: Duration = Duration::from_secs(2400);
/// Bounds the quick run, and the full one: emulation is 4 to 20 times slower than the machine.
const GUEST_TIME: Duration = Duration::from_secs(900);
const GUEST_TIME_FULL: Duration = Duration::from_secs(7200);
/// A variable that chooses among the steps: an extended regular expression for their names.
const STEPS: &str = "RAIO_RDMA_STEPS";
/// The tests of libxio that need devices.
const TESTS: [&str; 4] = ["rdma", "rdma_counts", "rdma_cuts", "rdma_resources"];

/// Runs them.
///
/// # Errors
/// A sentence: what could not be built, or that steps have failed (which they say themselves).
pub(crate) fn test(full: bool) -> Result<()> {
    if !cfg!(target_arch = "x86_64") || !has_apt() {
        println!(
            "SKIPPED: the virtual machine with RDMA devices boots Debian's kernel for x86-64, got with apt"
        );
        return Ok(());
    }
    compile::release()?;
    let mut variables = vec![variable("BIN", &fio::target().join("release"))];
    for name in TESTS {
        variables.push(variable(&format!("TEST_{}", name.to_uppercase()), &test_program(name)?));
    }
    let engine = fio::build()?;
    variables.push(variable("FIO_ENGINE", &engine.folder));
    let folder = tempfile::tempdir().map_err(|cause| format!("can't make a temporary folder: {cause}"))?;
    let reader = folder.path().join("raio_reader");
    child::run(
        Command::new("cc")
            .arg("-I")
            .arg(root().join("libraio/include"))
            .arg("-o")
            .arg(&reader)
            .arg(root().join("xtask/rdma/reader.c"))
            .arg("-L")
            .arg(fio::target().join("release"))
            .arg("-lraio"),
        BUILD_TIME,
    )?;
    variables.push(variable("READER", &reader));
    if full {
        variables.push("FULL=1".into());
    }
    if let Some(steps) = std::env::var_os(STEPS) {
        let mut text = OsString::from("STEPS=");
        text.push(steps);
        variables.push(text);
    }
    let mut command: Vec<OsString> = vec!["env".into()];
    command.extend(variables);
    command.extend(["bash".into(), root().join("xtask/rdma/tests").into_os_string()]);
    let time = if full { GUEST_TIME_FULL } else { GUEST_TIME };
    match rdma::boot(&rdma::Options::new(command, time))? {
        0 => Ok(()),
        status => Err(format!("steps in the virtual machine failed (status {status})")),
    }
}

fn has_apt() -> bool {
    crate::packages::has_program("apt-get") && crate::packages::has_program("dpkg")
}

fn variable(name: &str, value: &std::path::Path) -> OsString {
    let mut text = OsString::from(format!("{name}="));
    text.push(value);
    text
}

/// Builds a test of libxio and says where its program is.
fn test_program(name: &str) -> Result<PathBuf> {
    let mut build = cargo(&["test", "--no-run", "--quiet", "--package", "libxio", "--test", name]);
    let listed = child::output(build.arg("--message-format=json"), BUILD_TIME)?;
    let found = listed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let is_ours = line["target"]["name"] == name && line["target"]["kind"][0] == "test";
        line["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
    });
    found.ok_or_else(|| format!("cargo built no program for the test {name}"))
}
