//! The conformance suite of libxio under valgrind: on virtual time, whole, and what it can follow of the one over tcp. No
//! wild access, and nothing is left unreachable.

use crate::{Result, child, compile};
use std::process::Command;
use std::time::Duration;

/// Half a minute on a quiet machine.
const TIME: Duration = Duration::from_secs(1200);

/// Builds the suite and runs it.
///
/// # Errors
/// What valgrind found, or a test that failed.
pub(crate) fn run() -> Result<()> {
    let program = compile::test_program("conformance")?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
    valgrind.args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]);
    valgrind.arg(program).args([
        "--quiet",
        "sim::",
        "tcp::one_way",
        "tcp::cancel",
        "tcp::transfer",
        "tcp::remote",
    ]);
    child::run(&mut valgrind, TIME)
}
