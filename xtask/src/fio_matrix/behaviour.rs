//! What else fio asks of an engine: trim, flushes, waiting for events in every manner, pauses, several servers, and that
//! the sample jobs run.

use super::Case;
use super::ground::{Ground, Ran, options};
use crate::Result;
use std::fs;
use std::os::unix::fs::MetadataExt;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::quick("trim: storage is given back and reads as zeros", |ground| {
            fs::write(ground.data().join("file"), vec![7; 8 << 20]).map_err(|cause| cause.to_string())?;
            let ran = run(ground, "rw=randtrim bs=64k size=8m iodepth=16")?;
            ran.expect("trim/total_ios", 128)?;
            let metadata = fs::metadata(ground.data().join("file")).map_err(|cause| cause.to_string())?;
            if metadata.len() != 8 << 20 || metadata.blocks() > 128 {
                return Err(format!("{} bytes in {} blocks are left", metadata.len(), metadata.blocks()));
            }
            run(ground, "rw=read bs=64k iodepth=4 verify=pattern verify_pattern=0x00 verify_fatal=1")
                .map(drop)
        }).and_shared(),
        Case::quick("trim: mixed with verified writes, threads and processes", |ground| {
            for threads in ["0", "1"] {
                let line = format!("rw=randtrimwrite bs=16k size=4m iodepth=8 numjobs=2 thread={threads}");
                let format = format!("filename_format={}", ground.name("file.$jobnum"));
                let ran = ground.fio_well(&[options(&line), vec![format]].concat())?;
                if ran.sum("trim/total_ios") == 0 || ran.sum("write/total_ios") == 0 {
                    return Err(format!("no trims or no writes:\n{}", ran.text));
                }
            }
            Ok(())
        }).and_shared_in_full(),
        Case::quick("flush: fsync, fdatasync, sync_file_range, end_fsync, fsync_on_close, sync=", |ground| {
            let ran = run(ground, "rw=write bs=4k size=1m iodepth=8 fsync=8")?;
            if ran.sum("sync/total_ios") < 30 {
                return Err(format!("{} flushes instead of 32", ran.sum("sync/total_ios")));
            }
            for line in [
                "fdatasync=4",
                "sync_file_range=write:8",
                "end_fsync=1",
                "fsync_on_close=1",
                "sync=dsync",
                "sync=sync",
            ] {
                run(ground, &format!("rw=randwrite bs=4k size=256k iodepth=4 verify=crc32c {line}"))?;
            }
            Ok(())
        }).and_shared_in_full(),
        Case::quick(
            "events: least and most, none waited for, batches, limits of rate and latency",
            |ground| {
                for line in [
                    "iodepth_batch_complete_min=32",
                    "iodepth_batch_complete_min=1 iodepth_batch_complete_max=4",
                    "iodepth_batch_complete_min=0",
                    "iodepth_batch_submit=32 iodepth_low=4",
                    "rate_iops=2000",
                    "thinktime=2ms thinktime_blocks=64",
                ] {
                    if line.starts_with("read_iops") {
                        continue;
                    }
                    let ran = run(ground, &format!("rw=randread bs=4k size=2m iodepth=32 {line}"))?;
                    ran.expect("read/total_ios", 512)?;
                }
                Ok(())
            },
        ).and_shared(),
        Case::quick("events: an I/O longer than the server's limit is done in parts", |ground| {
            let ran = run(ground, "rw=write bs=16m size=48m iodepth=2 verify=crc32c verify_fatal=1")?;
            ran.expect("write/io_bytes", 48 << 20)
        }).and_shared(),
        Case::quick("pauses longer than the keepalive do no harm", |ground| {
            let line = "rw=randrw bs=4k size=1m iodepth=2 keepalive_ms=400 thinktime=1300ms number_ios=4";
            run(ground, line).map(drop)
        }).and_shared_in_full(),
        Case::quick("jobs: a time limit, loops, one after the other", |ground| {
            let ran = run(ground, "rw=randread bs=4k size=4m iodepth=16 time_based=1 runtime=2")?;
            if ran.sum("read/total_ios") < 1024 {
                return Err(format!("only {} reads in two seconds", ran.sum("read/total_ios")));
            }
            run(ground, "rw=randrw bs=4k size=1m iodepth=16 loops=3 verify=crc32c")?;
            let (first, second) = (ground.name("one"), ground.name("two"));
            let line = format!(
                "rw=randrw bs=4k size=1m filename={first} name=next ioengine=libraio stonewall rw=randrw bs=4k \
                 size=1m filename={second} thread=1"
            );
            ground.fio_well(&options(&line)).map(drop)
        }).and_shared_in_full(),
        Case::quick("servers: files of one job at two of them", |ground| {
            let other = ground.start_another()?;
            let names = format!("{}:{}", ground.name("here"), ground.name_at(other, "there"));
            for line in ["", "thread=1", "iodepth_batch_complete_min=16", "iodepth_batch_complete_min=0"] {
                let line =
                    format!("rw=randrw bs=4k size=4m iodepth=32 verify=crc32c filename={names} {line}");
                ground.fio_well(&options(&line))?;
            }
            if ground.data().join("there").exists() { Ok(()) } else { Err("nothing is there".to_owned()) }
        }).and_shared(),
        Case::quick("names: an IPv6 address, a host's name, blanks and a colon in the path", |ground| {
            let server = ground.start("tcp://[::1]:0")?;
            let tail = ground.name("").splitn(4, '/').last().unwrap_or_default().to_owned();
            for host in ["[\\:\\:1]", "\\:\\:1"] {
                let name = format!("filename=/{host}/{}/{tail}six", server.port);
                ground.fio_well(&[options("rw=randrw bs=4k size=1m verify=crc32c"), vec![name]].concat())?;
            }
            let name = format!("filename=/localhost/{}/{tail}a b\\:c", ground.port());
            ground.fio_well(&[options("rw=randrw bs=4k size=1m verify=crc32c"), vec![name]].concat())?;
            if ground.data().join("a b:c").exists() {
                Ok(())
            } else {
                Err("the file is not there".to_owned())
            }
        }),
        Case::quick("names: a socket, by uri and by option, relative and absolute", |ground| {
            let socket = ground.data().join("raio.sock");
            let _server = ground.start(&format!("shm://{}", socket.display()))?;
            let folder = ground.data();
            let case = folder.file_name().unwrap_or_default().display().to_string();
            let path = format!("/data/{case}/file");
            let short = format!("export/{case}/raio.sock");
            let line = "rw=randrw bs=4k size=1m verify=crc32c";
            for names in [
                format!("filename=shm\\:///{path}?socket={}", socket.display()),
                format!("filename=shm\\://{path}?socket={short}"),
                format!("filename_format=shm://{path}.$jobnum?socket={short}"),
                format!("socket={short} filename={path}"),
                format!("socket={short} transport=shm filename={path}:{path}2"),
            ] {
                ground.fio_well(&options(&format!("{line} {names}")))?;
            }
            for file in ["file", "file.0", "file2"] {
                if !ground.data().join(file).exists() {
                    return Err(format!("{file} is not there"));
                }
            }
            for (names, text) in [
                (format!("socket={short} transport=tcp filename={path}"), "shared memory"),
                (format!("filename=shm\\://{path}"), "the socket is missing"),
                (format!("socket=/nowhere/x.sock filename={path}"), "No such file"),
            ] {
                ground.fio_badly(&options(&format!("{line} {names}")), &[text])?;
            }
            Ok(())
        }),
        Case::quick("engine: loaded as external:PATH, and its help", |ground| {
            let library = ground.engine.library.display().to_string();
            run(ground, &format!("rw=randrw bs=4k size=1m verify=crc32c ioengine=external:{library}"))?;
            let ran = ground.fio(&options("enghelp=libraio"))?;
            for option in ["transport", "polling_us", "keepalive_ms", "connect_timeout_ms", "crc", "socket", "key_file"]
            {
                if !ran.text.contains(option) {
                    return Err(format!("the help has no {option}:\n{}", ran.text));
                }
            }
            Ok(())
        }),
        Case::quick("engine: the sample jobs run", sample_jobs),
        Case::quick("engine: lints and unit tests of its own", |ground| ground.engine.check()),
        Case::quick("engine: a log of I/O is written and replayed", |ground| {
            let log = ground.data().join("log");
            let log = log.display();
            run(ground, &format!("rw=randwrite bs=4k size=1m iodepth=4 write_iolog={log}"))?;
            let ran = ground.fio_well(&options(&format!("iodepth=4 read_iolog={log}")))?;
            // fio leaves the bytes of the last ones out of its sum, with every engine.
            ran.expect("write/total_ios", 256)
        }).and_shared_in_full(),
    ]
}

fn sample_jobs(ground: &mut Ground) -> Result<()> {
    let folder = crate::root().join("fio-engine/jobs");
    let _shared = ground.start(&format!("shm://{}", ground.sample_socket().display()))?;
    let entries = fs::read_dir(&folder).map_err(|cause| format!("{}: {cause}", folder.display()))?;
    let mut count = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "fio") {
            ground.fio_well(&[path.display().to_string()])?;
            count += 1;
        }
    }
    if count > 0 { Ok(()) } else { Err(format!("{}: there are none", folder.display())) }
}

fn run(ground: &Ground, line: &str) -> Result<Ran> {
    ground.fio_well(&[options(line), vec![format!("filename={}", ground.name("file"))]].concat())
}
