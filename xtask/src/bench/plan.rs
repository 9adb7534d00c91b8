//! Which rows there are: those that targets are held against, and curves.

use super::contender::Contender::{self, Engine, Local, Nbdkit, QemuNbd, Raio};
use super::row::Row;
use super::transport::{TRANSPORTS, Transport};
use super::work::{Direction, Polling, Store, Work};

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// Work that targets name.
pub(crate) const LATENCY_NULL: Work = Work::read(4 * KIB, 1, Store::Null);
/// Most of such memory is in the processor's caches, most of the other is not.
const SMALL: Store = Store::Memory(16);
const LARGE: Store = Store::Memory(256);
pub(crate) const LATENCY_MEMORY: [Work; 2] = [Work::read(4 * KIB, 1, SMALL), Work::read(4 * KIB, 1, LARGE)];
pub(crate) const READS_NULL: Work = Work::read(4 * KIB, 32, Store::Null);
pub(crate) const WRITES_NULL: Work = READS_NULL.direction(Direction::Write);
pub(crate) const READS_MEMORY: [Work; 2] = [Work::read(4 * KIB, 32, SMALL), Work::read(4 * KIB, 32, LARGE)];
pub(crate) const WRITES_MEMORY: [Work; 2] =
    [READS_MEMORY[0].direction(Direction::Write), READS_MEMORY[1].direction(Direction::Write)];
pub(crate) const READS_FILE: Work = Work::read(4 * KIB, 32, Store::File);
pub(crate) const MIDDLE_FILE: Work = Work::read(64 * KIB, 16, Store::File);
pub(crate) const LARGE_FILE: Work = Work::read(MIB, 4, Store::File);
pub(crate) const LATENCY_DEFAULT: Work = LATENCY_NULL.polling(Polling::Default);
pub(crate) const LATENCY_ASLEEP: Work = LATENCY_NULL.polling(Polling::Never);
pub(crate) const READS_DEFAULT: Work = READS_NULL.polling(Polling::Default);
/// The first floor: what must hold in any case.
pub(crate) const FLOOR_RATE: Work = READS_FILE.polling(Polling::Default);
pub(crate) const FLOOR_LATENCY: Work = Work::read(4 * KIB, 1, Store::File).polling(Polling::Default);

/// The limit of each transport.
pub(crate) const MINIMAL_TCP: Contender = Contender::Minimal(&TRANSPORTS[0]);
const MINIMAL_SHM: Contender = Contender::Minimal(&TRANSPORTS[1]);

/// Rows that are run in rounds.
pub(crate) fn rows(transports: &[&'static Transport], quick: bool) -> Vec<Row> {
    let ours = |others: &[Contender]| -> Vec<Contender> {
        transports.iter().copied().map(Raio).chain(others.iter().copied()).collect()
    };
    let both = |others: &[Contender]| -> Vec<Contender> {
        let engines = transports.iter().copied().map(Engine);
        transports.iter().copied().map(Raio).chain(engines).chain(others.iter().copied()).collect()
    };
    // Where only shared memory is asked for, and its limit.
    let shm: Vec<Contender> = match transports.iter().copied().find(|transport| transport.name == "shm") {
        Some(transport) => vec![Raio(transport), Engine(transport), MINIMAL_SHM],
        None => Vec::new(),
    };
    let mut rows = vec![
        (FLOOR_RATE, both(&[Nbdkit, QemuNbd])),
        (FLOOR_LATENCY, both(&[Nbdkit, QemuNbd])),
        (LATENCY_NULL, ours(&[MINIMAL_TCP])),
        (READS_NULL, ours(&[MINIMAL_TCP, Nbdkit])),
        (WRITES_NULL, ours(&[MINIMAL_TCP, Nbdkit])),
        (READS_FILE, both(&[MINIMAL_TCP, MINIMAL_SHM, Local])),
        (MIDDLE_FILE, ours(&[MINIMAL_TCP, MINIMAL_SHM, Local])),
        (LARGE_FILE, ours(&[MINIMAL_TCP, MINIMAL_SHM, Local])),
        (LATENCY_DEFAULT, ours(&[Nbdkit])),
        (LATENCY_ASLEEP, ours(&[MINIMAL_TCP, MINIMAL_SHM, Nbdkit])),
        (READS_DEFAULT, ours(&[Nbdkit])),
    ];
    rows.extend(
        [LATENCY_MEMORY, READS_MEMORY, WRITES_MEMORY].concat().into_iter().map(|work| (work, shm.clone())),
    );
    if !quick {
        let null = |block, depth| Work::read(block, depth, Store::Null);
        rows.extend([
            (null(64 * KIB, 16), ours(&[MINIMAL_TCP, Nbdkit])),
            (null(MIB, 4), ours(&[MINIMAL_TCP, Nbdkit])),
            (READS_FILE.direction(Direction::Mix), ours(&[Local, Nbdkit])),
            (READS_FILE.direction(Direction::Write), ours(&[MINIMAL_TCP, Local, Nbdkit])),
        ]);
    }
    let row = |(work, contenders): (Work, Vec<Contender>)| Row::new(work, &contenders);
    rows.into_iter().map(row).filter(|row| !row.entries.is_empty()).collect()
}

/// What a curve's points differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Depth,
    Block,
    Jobs,
}

/// Rows that differ in one number, run once each.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) axis: Axis,
    pub(crate) rows: Vec<Row>,
}

/// The curves.
pub(crate) fn curves(transports: &[&'static Transport], quick: bool) -> Vec<Curve> {
    let ours = |others: &[Contender]| -> Vec<Contender> {
        transports.iter().copied().map(Raio).chain(others.iter().copied()).collect()
    };
    let curve = |name, axis, works: Vec<Work>, contenders: Vec<Contender>| Curve {
        name,
        axis,
        rows: works.into_iter().map(|work| Row::new(work, &contenders)).collect(),
    };
    let depths: &[u32] = if quick { &[1, 8, 32, 128] } else { &[1, 2, 4, 8, 16, 32, 64, 128, 256] };
    let blocks: &[u32] =
        if quick { &[4 * KIB, 64 * KIB, MIB] } else { &[512, 4096, 16384, 65536, 262_144, MIB] };
    let depth = |depth: &u32| Work { depth: *depth, ..READS_NULL };
    let block = |block: &u32| Work { block_bytes: *block, depth: 16, ..READS_FILE };
    let mut curves = vec![
        curve("depth", Axis::Depth, depths.iter().map(depth).collect(), ours(&[MINIMAL_TCP, Nbdkit])),
        curve("block", Axis::Block, blocks.iter().map(block).collect(), ours(&[MINIMAL_TCP, Nbdkit, Local])),
    ];
    if !quick {
        let file = |depth| Work { depth, ..READS_FILE };
        let write = |block_bytes| Work { block_bytes, depth: 16, ..READS_FILE.direction(Direction::Write) };
        let direct = |depth| Work { depth, ..FLOOR_RATE.direct() };
        let direct_write = |depth| direct(depth).direction(Direction::Write);
        let jobs = [1, 2, 4, 8].map(|jobs| READS_DEFAULT.jobs(jobs));
        curves.extend([
            curve("depth-file", Axis::Depth, [1, 4, 16, 64, 256].map(file).into(), ours(&[Local])),
            curve("block-write", Axis::Block, [512, 4096, 65_536, MIB].map(write).into(), ours(&[Local])),
            curve("jobs", Axis::Jobs, jobs.into(), ours(&[Nbdkit])),
            curve("direct", Axis::Depth, [1, 4, 32].map(direct).into(), ours(&[Local, QemuNbd])),
            curve("direct-write", Axis::Depth, [1, 32].map(direct_write).into(), ours(&[Local])),
        ]);
    }
    curves
}
