//! Data come back as they were written: block sizes, depths, jobs as threads and as processes, buffered and direct, and
//! after the server was restarted.

use super::Case;
use super::ground::{Ground, options};
use crate::Result;

/// One combination: quick or not, blocks, depth, jobs, threads, direct, size of each job's file, and more options.
type Combination = (bool, &'static str, u32, u32, bool, bool, &'static str, &'static str);

const QUICK: bool = true;
const FULL: bool = false;
const THREADS: bool = true;
const PROCESSES: bool = false;
const DIRECT: bool = true;
const BUFFERED: bool = false;

const MIX: &str = "bssplit=512/20:4k/40:64k/30:1m/10";

const COMBINATIONS: &[Combination] = &[
    (QUICK, "bs=512", 32, 1, PROCESSES, BUFFERED, "2m", ""),
    (QUICK, "bs=4k", 1, 1, THREADS, BUFFERED, "4m", ""),
    (QUICK, "bs=4k", 32, 4, PROCESSES, BUFFERED, "8m", ""),
    (QUICK, "bs=4k", 256, 8, THREADS, BUFFERED, "8m", ""),
    (QUICK, "bs=4k", 64, 2, PROCESSES, DIRECT, "8m", ""),
    (QUICK, "bs=64k", 16, 2, THREADS, DIRECT, "32m", ""),
    (QUICK, "bs=1m", 8, 1, PROCESSES, BUFFERED, "128m", ""),
    (QUICK, MIX, 64, 2, THREADS, BUFFERED, "64m", ""),
    (
        QUICK,
        "bs=4k",
        32,
        1,
        PROCESSES,
        BUFFERED,
        "8m",
        "iodepth_batch_submit=16 iodepth_batch_complete_min=8",
    ),
    (QUICK, "bs=16k", 32, 2, PROCESSES, BUFFERED, "16m", "crc=1 transport=tcp polling_us=0"),
    (FULL, "bs=512", 1, 1, THREADS, BUFFERED, "1m", ""),
    (FULL, "bs=512", 256, 8, PROCESSES, BUFFERED, "4m", ""),
    (FULL, "bs=512", 16, 2, THREADS, DIRECT, "1m", ""),
    (FULL, "bs=1k", 256, 4, THREADS, BUFFERED, "4m", ""),
    (FULL, "bs=4k", 1, 8, PROCESSES, BUFFERED, "4m", ""),
    (FULL, "bs=4k", 256, 8, PROCESSES, DIRECT, "16m", ""),
    (FULL, "bs=4k", 256, 1, PROCESSES, BUFFERED, "64m", ""),
    (FULL, "bs=4k", 128, 4, THREADS, DIRECT, "32m", "iodepth_batch_submit=32"),
    (FULL, "bs=16k", 64, 8, THREADS, BUFFERED, "32m", ""),
    (FULL, "bs=64k", 256, 4, PROCESSES, BUFFERED, "128m", ""),
    (FULL, "bs=128k", 32, 2, PROCESSES, DIRECT, "128m", ""),
    (FULL, "bs=1m", 1, 1, THREADS, DIRECT, "128m", ""),
    (FULL, "bs=1m", 64, 4, THREADS, BUFFERED, "256m", ""),
    (FULL, "bs=1m", 256, 2, PROCESSES, DIRECT, "512m", ""),
    (FULL, MIX, 256, 8, PROCESSES, BUFFERED, "128m", ""),
    (FULL, MIX, 32, 4, PROCESSES, DIRECT, "128m", ""),
    (FULL, "bs=4k", 32, 4, PROCESSES, BUFFERED, "256m", "crc=1"),
    (FULL, "bs=4k", 32, 2, PROCESSES, BUFFERED, "32m", "iodepth_batch_complete_min=0 polling_us=0"),
    (FULL, "bs=4k", 32, 2, THREADS, BUFFERED, "32m", "verify_async=2"),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = COMBINATIONS.iter().map(combination).collect();
    cases.extend([
        Case::quick(
            "verify: what was written is there after a restart of the server",
            after_restart("bs=4k direct=0"),
        )
        .and_shared(),
        Case::full("verify: blocks written several times hold what was written last", |ground| {
            // Not randrw: without a map of blocks, fio 3.33 then reports errors with every engine (psync on a local file
            // at depth 1 too).
            let line = "rw=randwrite bs=4k iodepth=32 numjobs=2 size=32m verify=crc32c verify_fatal=1 \
                        serialize_overlap=1 norandommap=1";
            let format = format!("filename_format={}", ground.name("file.$jobnum"));
            ground.fio_well(&[options(line), vec![format]].concat()).map(drop)
        })
        .and_shared(),
        Case::full("verify: direct writes are there after a restart", after_restart("bs=64k direct=1"))
            .and_shared(),
        Case::full("verify: mixed blocks are there after a restart", after_restart(MIX)).and_shared(),
        Case::quick("verify: other checks than crc32c (md5, sha256, xxhash, pattern, meta)", |ground| {
            for check in
                ["md5", "sha256", "xxhash", "pattern verify_pattern=0x5ca1ab1e", "crc32c verify_interval=512"]
            {
                let line = format!("rw=randwrite bs=8k size=4m iodepth=16 verify={check} verify_fatal=1");
                let mut all = options(&line);
                all.push(format!("filename={}", ground.name("file")));
                ground.fio_well(&all)?;
            }
            Ok(())
        })
        .and_shared_in_full(),
        Case::quick("verify: a byte changed behind fio's back is found", |ground| {
            let line = "rw=write bs=4k size=1m iodepth=8 verify=crc32c verify_fatal=1";
            let mut all = options(line);
            all.push(format!("filename={}", ground.name("file")));
            ground.fio_well(&[all.clone(), options("do_verify=0")].concat())?;
            let path = ground.data().join("file");
            let mut bytes = std::fs::read(&path).map_err(|cause| cause.to_string())?;
            bytes[123_456] ^= 1;
            std::fs::write(&path, bytes).map_err(|cause| cause.to_string())?;
            ground.fio_badly(&[all, options("verify_only=1")].concat(), &["verify"]).map(drop)
        })
        .and_shared(),
    ]);
    cases
}

fn combination(combination: &'static Combination) -> Case {
    let (quick, blocks, depth, jobs, threads, direct, size, more) = *combination;
    let name = format!(
        "verify: randrw {blocks}, depth {depth}, {jobs} {}, {}{}{more}",
        if threads { "thread(s)" } else { "process(es)" },
        if direct { "direct" } else { "buffered" },
        if more.is_empty() { "" } else { ", " },
    );
    let run = move |ground: &mut Ground| {
        let line = format!(
            "rw=randrw {blocks} iodepth={depth} numjobs={jobs} thread={} direct={} size={size} verify=crc32c \
             verify_fatal=1 {more}",
            u8::from(threads),
            u8::from(direct)
        );
        let mut all = options(&line);
        all.push(format!("filename_format={}", ground.name("file.$jobnum")));
        let ran = ground.fio_well(&all)?;
        if ran.sum("write/io_bytes") == 0 || ran.sum("read/io_bytes") == 0 {
            return Err(format!("nothing was read or nothing written:\n{}", ran.text));
        }
        Ok(())
    };
    let case = if quick { Case::quick(name, run) } else { Case::full(name, run) };
    if more.contains("transport=") { case } else { case.and_shared() }
}

/// Writes, restarts the server, and lets a second fio verify what it did not write.
fn after_restart(blocks: &'static str) -> impl Fn(&mut Ground) -> Result<()> {
    move |ground| {
        let line =
            format!("rw=randwrite {blocks} size=32m iodepth=32 numjobs=2 verify=crc32c verify_fatal=1");
        let mut all = options(&line);
        all.push(format!("filename_format={}", ground.name("file.$jobnum")));
        ground.fio_well(&[all.clone(), options("do_verify=0 end_fsync=1")].concat())?;
        ground.restart()?;
        ground.fio_well(&[all, options("verify_only=1")].concat()).map(drop)
    }
}
