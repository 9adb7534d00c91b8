//! A pinned context binds its thread to the processor that its options name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libxio::{Context, ContextOptions, Error, PinnedContext};
use rustix::thread::sched_getaffinity;

#[test]
fn a_pinned_context_binds_its_thread() {
    let before = sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).unwrap();
    let options = |cpu| ContextOptions { cpu: Some(cpu), ..ContextOptions::default() };
    // A movable one goes where it is driven.
    let _movable = Context::new(options(cpu)).unwrap();
    assert_eq!(sched_getaffinity(None).unwrap().count(), before.count());
    let refused = PinnedContext::new(options(1 << 20));
    assert!(matches!(refused, Err(Error::LimitExceeded { .. })), "{refused:?}");
    let _pinned = PinnedContext::new(options(cpu)).unwrap();
    let now = sched_getaffinity(None).unwrap();
    assert!(now.count() == 1 && now.is_set(cpu));
}
