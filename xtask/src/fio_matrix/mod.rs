//! fio as the judge: it writes, verifies, disturbs and counts through the engine, against servers of this build.
//!
//! A case is a name and a function over a [`Ground`], which has a server and knows how to run fio. Quick cases are run by
//! every `cargo xtask test`, the others by its long form and by `cargo xtask fio --matrix --full`. Every case gets a
//! folder of its own at the server, so that a failed one leaves nothing that the next would trip over.

mod behaviour;
mod faults;
mod ground;
mod layout;
mod verify;

use crate::fio::Engine;
use crate::{Result, compile, fio};
use ground::{By, Ground};
use std::time::Instant;

/// What a case does.
type Run = dyn Fn(&mut Ground) -> Result<()>;

/// One case.
struct Case {
    /// What it shows.
    name: String,
    /// Among those that every test run has.
    quick: bool,
    /// Run by shared memory as well, and whether that is quick.
    shared: Option<bool>,
    run: Box<Run>,
}

impl Case {
    fn quick(name: impl Into<String>, run: impl Fn(&mut Ground) -> Result<()> + 'static) -> Case {
        Case { name: name.into(), quick: true, shared: None, run: Box::new(run) }
    }

    fn full(name: impl Into<String>, run: impl Fn(&mut Ground) -> Result<()> + 'static) -> Case {
        Case { name: name.into(), quick: false, shared: None, run: Box::new(run) }
    }

    /// By shared memory as well, as quick as without.
    fn and_shared(self) -> Case {
        Case { shared: Some(self.quick), ..self }
    }

    /// By shared memory as well, in the full matrix.
    fn and_shared_in_full(self) -> Case {
        Case { shared: Some(false), ..self }
    }
}

/// Builds engine and server, and runs the quick cases, or all.
///
/// # Errors
/// The cases that failed.
pub(crate) fn run(full: bool) -> Result<()> {
    run_some(&fio::build()?, full, &[])
}

/// As [`run`], with an engine that is built, and only cases whose name has one of the texts in it, if there are any.
///
/// # Errors
/// The cases that failed; a build that failed.
pub(crate) fn run_some(engine: &Engine, full: bool, only: &[String]) -> Result<()> {
    compile::programs(&["raio-server"])?;
    let mut ground = Ground::new(engine.clone())?;
    let cases = [verify::cases(), layout::cases(), behaviour::cases(), faults::cases()];
    let wanted = |name: &str, quick: bool| {
        if only.is_empty() { quick || full } else { only.iter().any(|text| name.contains(text)) }
    };
    let mut failed = Vec::new();
    let mut passed = 0;
    let begun = Instant::now();
    for by in [By::Network, By::SharedMemory] {
        ground.reach_by(by);
        for case in cases.iter().flatten() {
            let (name, quick) = match (by, case.shared) {
                (By::Network, _) => (case.name.clone(), case.quick),
                (By::SharedMemory, Some(quick)) => (format!("shm: {}", case.name), quick),
                (By::SharedMemory, None) => continue,
            };
            if !wanted(&name, quick) {
                continue;
            }
            let started = Instant::now();
            let result = ground.prepare().and_then(|()| (case.run)(&mut ground));
            let seconds = started.elapsed().as_secs_f64();
            match result {
                Ok(()) => {
                    passed += 1;
                    println!("fio: ok      {seconds:5.1} s  {name}");
                }
                Err(sentence) => {
                    println!("fio: FAILED  {seconds:5.1} s  {name}\n{sentence}");
                    failed.push(name);
                    // What a failed case did to the server is not the next one's fault.
                    ground.stop_servers();
                }
            }
        }
    }
    println!("fio: {passed} cases passed, {} failed, {:.0} s", failed.len(), begun.elapsed().as_secs_f64());
    match (failed.is_empty(), passed) {
        (true, 0) => Err("no case of the fio matrix has such a name".to_owned()),
        (true, _) => Ok(()),
        (false, _) => Err(format!("fio cases failed: {}", failed.join("; "))),
    }
}
