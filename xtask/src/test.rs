//! Every test, in steps: each is named, timed and run to its end, and the last lines say what failed or was skipped.

use crate::compile::{EVERYTHING, cargo};
use crate::{Common, Result, child, compile, counts, fio, fio_matrix, packages, rdma, rdma_test, target};
use clap::Args;
use std::time::{Duration, Instant};

/// No step takes longer on two cores; a hang ends here.
const STEP_TIME: Duration = Duration::from_secs(2400);

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run the long form of every test: hours instead of minutes
    #[arg(long)]
    long: bool,
    /// Run the long form of the tests that need RDMA devices
    #[arg(long)]
    rdma_full: bool,
    /// Run only this step; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Name the steps and stop
    #[arg(long)]
    list: bool,
}

struct Step {
    name: &'static str,
    what: &'static str,
    run: fn(&Arguments) -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { name: "format", what: "every file is formatted", run: format },
    Step { name: "tidy", what: "the house rules hold", run: |_| crate::tidy::check() },
    Step { name: "lints", what: "clippy has nothing to say", run: lints },
    Step { name: "docs", what: "the documentation builds without warnings", run: docs },
    Step { name: "unit", what: "unit and integration tests of every crate", run: unit },
    Step {
        name: "memcheck",
        what: "valgrind finds nothing in the conformance suite",
        run: |_| crate::memcheck::run(),
    },
    Step { name: "doctests", what: "the examples in the documentation run", run: doctests },
    Step {
        name: "fuzz",
        what: "the fuzz targets find nothing in a short time",
        run: |arguments| crate::fuzz::run(if arguments.long { 1800 } else { 24 }),
    },
    Step { name: "release", what: "what users run builds", run: release },
    Step {
        name: "counts",
        what: "no operation takes more instructions, system calls, allocations or copies than it did",
        run: |_| counts::run(&counts::Options::default()),
    },
    Step {
        name: "fio",
        what: "fio verifies and disturbs through its engine",
        run: |arguments| fio_matrix::run(arguments.long),
    },
    Step {
        name: "rdma",
        what: "RDMA devices, in a virtual machine",
        run: |arguments| rdma_test::test(arguments.rdma_full || arguments.long),
    },
    Step { name: "demo", what: "the demonstration runs, as a user would run it", run: demo },
];

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    if arguments.list {
        for Step { name, what, .. } in STEPS {
            println!("{name:10} {what}");
        }
        return Ok(());
    }
    if let Some(unknown) = arguments.only.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        return Err(format!("there is no step {unknown}; `cargo xtask test --list` names them"));
    }
    let needed = [packages::BUILD, packages::TEST, fio::PACKAGES, rdma::PACKAGES, rdma_test::PACKAGES];
    packages::ensure(&needed.concat(), common)?;
    ensure_nextest(common)?;
    let wanted =
        |step: &&Step| arguments.only.is_empty() || arguments.only.iter().any(|name| name == step.name);
    let mut failed = Vec::new();
    let mut passed = 0;
    let started = Instant::now();
    for step in STEPS.iter().filter(wanted) {
        println!("\n== {}: {}", step.name, step.what);
        let begun = Instant::now();
        match (step.run)(arguments) {
            Ok(()) => {
                passed += 1;
                println!("== {}: passed ({} s)", step.name, begun.elapsed().as_secs());
            }
            Err(sentence) => {
                println!("== {}: FAILED ({} s): {sentence}", step.name, begun.elapsed().as_secs());
                failed.push(step.name);
            }
        }
    }
    println!("\nsteps: {passed} passed, {} failed", failed.len());
    println!("took {} s", started.elapsed().as_secs());
    if failed.is_empty() { Ok(()) } else { Err(format!("these steps failed: {}", failed.join(", "))) }
}

/// The test runner is a cargo command, not a Debian package.
fn ensure_nextest(common: &Common) -> Result<()> {
    if packages::has_program("cargo-nextest") {
        return Ok(());
    }
    let arguments = ["install", "--locked", "cargo-nextest"];
    if common.no_install {
        return Err(format!(
            "the test runner is missing; install it with\n    cargo {}",
            arguments.join(" ")
        ));
    }
    println!("Installing the test runner: cargo-nextest (this takes some minutes)");
    child::run(&mut cargo(&arguments), STEP_TIME)
}

fn format(_: &Arguments) -> Result<()> {
    child::run(&mut cargo(&["fmt", "--all", "--check"]), STEP_TIME)
}

fn lints(_: &Arguments) -> Result<()> {
    let mut clippy = cargo(&["clippy", "--quiet", "--all-targets"]);
    child::run(clippy.args(EVERYTHING).args(["--", "-D", "warnings"]), STEP_TIME)
}

fn docs(_: &Arguments) -> Result<()> {
    let mut doc = cargo(&["doc", "--quiet", "--no-deps"]);
    child::run(doc.args(EVERYTHING).env("RUSTDOCFLAGS", "-D warnings"), STEP_TIME)
}

fn unit(arguments: &Arguments) -> Result<()> {
    let mut nextest = cargo(&["nextest", "run", "--no-fail-fast"]);
    nextest.args(EVERYTHING);
    if arguments.long {
        nextest
            .args(["--profile", "long", "--run-ignored", "all"])
            .env("XIO_SEEDS", "200000")
            .env("XIO_SOAK_SECONDS", "600");
    }
    child::run(&mut nextest, if arguments.long { STEP_TIME * 10 } else { STEP_TIME })
}

fn release(_: &Arguments) -> Result<()> {
    compile::release()?;
    compile::check_exports(&target().join("release/libraio.so"), &["raio_"])
}

fn doctests(_: &Arguments) -> Result<()> {
    let mut test = cargo(&["test", "--quiet", "--doc"]);
    child::run(test.args(EVERYTHING), STEP_TIME)
}

fn demo(_: &Arguments) -> Result<()> {
    child::run(&mut cargo(&["xtask", "demo", "--mib", "64", "--seconds", "1"]), STEP_TIME)
}
