//! Durable writes: what goes to the ring for them.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use libxio::{Buffer, Context, ContextOptions, Event};
use std::time::Duration;

/// Memory that nobody asks for.
struct NoMemory;

impl Memory for NoMemory {
    fn response_buffer(&mut self, _length: usize) -> Result<Option<Buffer>, Errno> {
        Ok(None)
    }

    fn buffer(&mut self, _length: usize) -> Option<Buffer> {
        None
    }
}

const COMMAND: Command = Command::Write { offset: 0, length: 4096, durable: true };

/// A new file, and whether RWF_DSYNC is to be used.
fn file(dsync: bool) -> (tempfile::NamedTempFile, UringFile) {
    let named = tempfile::NamedTempFile::new().unwrap();
    let fd = open_path(named.path(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let file = UringFile::new(fd, OpenFlags::READ.with(OpenFlags::WRITE)).unwrap();
    file.dsync.store(dsync, Ordering::Relaxed);
    (named, file)
}

/// Runs the operation of a step on a ring.
fn run(context: &mut Context, step: Step) -> Completion {
    let Step::Ring(op) = step else { panic!("not for the ring: {step:?}") };
    context.submit(op, 0).unwrap();
    context.wait(Some(Duration::from_secs(20))).unwrap();
    match context.next_event() {
        Some(Event::Completed(completion)) => completion,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_durable_write_is_one_operation() {
    let mut context = Context::new(ContextOptions::default()).unwrap();
    let (named, file) = file(true);
    let mut pieces = Sgl::from(vec![7; 2048]);
    pieces.push(vec![7; 2048].into()).unwrap();
    for data in [Sgl::from(vec![7; 4096]), pieces] {
        let mut command = COMMAND;
        let step = file.start(&mut command, data, &mut NoMemory);
        assert!(matches!(step, Step::Ring(FileOp::Write { durable: true, .. })), "{step:?}");
        let completion = run(&mut context, step);
        let end = file.resume(&mut command, completion);
        assert!(matches!(end, Step::Ended(Ok(Done::Moved(4096)))), "{end:?}");
        assert_eq!(std::fs::read(named.path()).unwrap(), [7; 4096]);
    }
}

#[test]
fn a_kernel_that_does_not_know_durable_writes_is_asked_to_write_and_to_sync() {
    let mut context = Context::new(ContextOptions::default()).unwrap();
    let (named, file) = file(true);
    let mut command = COMMAND;
    let step = file.start(&mut command, vec![7; 4096].into(), &mut NoMemory);
    let mut completion = run(&mut context, step);
    std::fs::write(named.path(), b"").unwrap();
    completion.result = Err(libc::EOPNOTSUPP);
    let Step::Block(data, 0) = file.resume(&mut command, completion) else { panic!("not off the loop") };
    let outcome = file.block(command, data, 0);
    assert!(matches!(outcome, Ok(Done::Moved(4096))), "{outcome:?}");
    assert_eq!(std::fs::read(named.path()).unwrap(), [7; 4096]);
    // From then on without the flag.
    let mut command = COMMAND;
    let mut step = file.start(&mut command, vec![8; 4096].into(), &mut NoMemory);
    let mut kinds = Vec::new();
    while let Step::Ring(op) = &step {
        kinds.push(match op {
            FileOp::Write { durable: false, .. } => "write",
            FileOp::Sync { data_only: true, .. } => "sync",
            other => panic!("{other:?}"),
        });
        let completion = run(&mut context, step);
        step = file.resume(&mut command, completion);
    }
    assert!(matches!(step, Step::Ended(Ok(Done::Moved(4096)))), "{step:?}");
    assert_eq!(kinds.last(), Some(&"sync"));
    assert_eq!(std::fs::read(named.path()).unwrap(), [8; 4096]);
}

#[test]
fn a_durable_write_of_nothing_syncs_all() {
    let (_named, file) = file(true);
    let mut command = Command::Write { offset: 0, length: 0, durable: true };
    let step = file.start(&mut command, Sgl::new(), &mut NoMemory);
    assert!(
        matches!(step, Step::Ring(FileOp::Sync { .. } | FileOp::Write { durable: false, .. })),
        "{step:?}"
    );
}
