//! Sizes, making files and removing them, as fio does with files of its own.

use super::Case;
use super::ground::{Ground, options};
use crate::Result;
use std::fs;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::quick("layout: what a job reads is made first, with content", |ground| {
            run(ground, "rw=randread bs=4k size=3m iodepth=8 create_fsync=1")?;
            let bytes = content(ground, "file")?;
            if bytes.len() != 3 << 20 || bytes.chunks(4096).any(|block| block.iter().all(|byte| *byte == 0)) {
                return Err(format!("the file has {} bytes, or blocks of zeros", bytes.len()));
            }
            Ok(())
        })
        .and_shared(),
        Case::quick("layout: an existing file is used at its size, without size=", |ground| {
            fs::write(ground.data().join("file"), vec![7; 1 << 20]).map_err(|cause| cause.to_string())?;
            run(ground, "rw=read bs=64k iodepth=4")?.expect("read/io_bytes", 1 << 20)?;
            expect_size(ground, "file", 1 << 20)
        }),
        Case::quick("layout: a job that only writes makes its file, at once or as it goes", |ground| {
            for fallocate in ["native", "none", "truncate", "keep", "posix"] {
                run(ground, &format!("rw=write bs=64k size=1m iodepth=4 fallocate={fallocate}"))?;
                expect_size(ground, "file", 1 << 20)?;
                fs::remove_file(ground.data().join("file")).map_err(|cause| cause.to_string())?;
            }
            Ok(())
        }),
        Case::quick("layout: create_on_open, overwrite, append, several files, a range of sizes", |ground| {
            run(ground, "rw=write bs=64k size=1m create_on_open=1")?;
            expect_size(ground, "file", 1 << 20)?;
            run(ground, "rw=randwrite bs=4k size=2m overwrite=1 number_ios=10")?;
            expect_size(ground, "file", 2 << 20)?;
            run(ground, "rw=write bs=64k size=1m file_append=1")?;
            expect_size(ground, "file", 3 << 20)?;
            let format = format!("filename_format={}", ground.name("part.$jobnum.$filenum"));
            let line = "rw=randrw bs=4k size=5m nrfiles=5 iodepth=16 verify=crc32c numjobs=2";
            ground.fio_well(&[options(line), vec![format.clone()]].concat())?;
            expect_size(ground, "part.1.4", 1 << 20)?;
            let line = "rw=randread bs=4k nrfiles=2 filesize=64k-256k iodepth=4";
            let format = format.replace("part", "range");
            ground.fio_well(&[options(line), vec![format]].concat())?;
            let size =
                fs::metadata(ground.data().join("range.0.1")).map_err(|cause| cause.to_string())?.len();
            if (64 << 10..=256 << 10).contains(&size) { Ok(()) } else { Err(format!("a size of {size}")) }
        })
        .and_shared_in_full(),
        Case::quick("layout: unlink=1 removes the file", |ground| {
            run(ground, "rw=randrw bs=4k size=1m unlink=1")?;
            match ground.data().join("file").exists() {
                true => Err("it is still there".to_owned()),
                false => Ok(()),
            }
        })
        .and_shared_in_full(),
        Case::quick("layout: a file that may not be made is not", |ground| {
            let name = vec![format!("filename={}", ground.name("file"))];
            let bad = [
                ("rw=read size=1m allow_file_create=0", "allow_file_create=0"),
                ("rw=read size=1m readonly", "--readonly"),
                ("rw=read", "give size="),
            ];
            for (line, text) in bad {
                ground.fio_badly(&[options(line), name.clone()].concat(), &[text])?;
            }
            match ground.data().join("file").exists() {
                true => Err("it was made".to_owned()),
                false => Ok(()),
            }
        }),
        Case::quick("layout: many jobs on one file, each its part", |ground| {
            let line = "rw=randrw bs=4k size=2m iodepth=8 numjobs=4 offset_increment=2m verify=crc32c";
            run(ground, line)?;
            expect_size(ground, "file", 8 << 20)
        })
        .and_shared(),
        Case::quick("layout: sizes and offsets in per cent, devices of a fixed size", |ground| {
            fs::write(ground.data().join("file"), vec![7; 8 << 20]).map_err(|cause| cause.to_string())?;
            run(ground, "rw=read bs=64k size=50% offset=25%")?.expect("read/io_bytes", 4 << 20)?;
            let null = ground.place(0, "null");
            let ran =
                ground.fio_well(&options(&format!("filename={null} rw=read bs=1m iodepth=16 runtime=20")))?;
            ran.expect("read/io_bytes", 1 << 30)?;
            let memory = ground.place(0, "memory");
            let line = format!("filename={memory} rw=randrw bs=4k size=8m iodepth=16 verify=crc32c");
            ground.fio_well(&options(&line)).map(drop)
        })
        .and_shared(),
        Case::full("layout: jobs that set up in parallel", |ground| {
            let line = "rw=randrw bs=4k size=2m iodepth=8 numjobs=4 create_serialize=0 verify=crc32c";
            let format = format!("filename_format={}", ground.name("file.$jobnum"));
            ground.fio_well(&[options(line), vec![format]].concat()).map(drop)
        })
        .and_shared(),
    ]
}

fn run(ground: &Ground, line: &str) -> Result<super::ground::Ran> {
    ground.fio_well(&[options(line), vec![format!("filename={}", ground.name("file"))]].concat())
}

fn content(ground: &Ground, name: &str) -> Result<Vec<u8>> {
    let path = ground.data().join(name);
    fs::read(&path).map_err(|cause| format!("{}: {cause}", path.display()))
}

fn expect_size(ground: &Ground, name: &str, size: u64) -> Result<()> {
    let path = ground.data().join(name);
    let found = fs::metadata(&path).map_err(|cause| format!("{}: {cause}", path.display()))?.len();
    if found == size { Ok(()) } else { Err(format!("{name} has {found} bytes instead of {size}")) }
}
