//! The tests that need RDMA devices, in the virtual machine of `cargo xtask rdma`: the conformance suite, what an
//! operation costs, cut connections, the commands, C programs, fio, and a comparison with perftest. What they run is
//! built here, on the outside; `xtask/rdma/tests` runs it inside, step by step.

use crate::{Result, child, compile, fio, rdma, root, target};
use std::ffi::OsString;
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
const TESTS: [&str; 6] =
    ["rdma", "rdma_counts", "rdma_cuts", "rdma_one_sided", "rdma_registrations", "rdma_resources"];

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
    compile::programs(&["xio"])?;
    let mut variables = vec![variable("BIN", &target().join("release"))];
    for name in TESTS {
        variables.push(variable(&format!("TEST_{}", name.to_uppercase()), &compile::test_program(name)?));
    }
    variables.push(variable("UNIT_TESTS", &compile::unit_tests("libxio")?));
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
            .arg(target().join("release"))
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
