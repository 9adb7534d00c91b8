//! What goes wrong is said, in time, and never hangs: servers that die or fall silent, wrong names, missing rights.

use super::Case;
use super::ground::{Ground, Server, options, server_command};
use crate::{Result, packages};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

/// Beyond the engine's own limit: time for fio to start, to report, and a busy machine.
const GRACE: Duration = Duration::from_secs(20);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::quick("fault: a server killed in mid-run ends every job with an error", |ground| {
            for threads in ["0", "1"] {
                ground.prepare()?;
                let line = format!("rw=randrw bs=4k size=16m iodepth=32 numjobs=2 thread={threads}");
                disturbed(ground, &line, "KILL", &["connection", "Connection reset"])?;
            }
            Ok(())
        })
        .and_shared(),
        Case::quick("fault: a server that falls silent is given up after the keepalive", |ground| {
            let line = "rw=randrw bs=4k size=16m iodepth=32 keepalive_ms=1500";
            let result = disturbed(ground, line, "STOP", &["no answer for", "Connection timed out"]);
            // Else it could not be ended.
            ground.server()?.signal("CONT")?;
            result
        })
        .and_shared(),
        Case::full("fault: a silent server, and nothing waited for", |ground| {
            let line = "rw=randread bs=4k size=16m iodepth=32 keepalive_ms=1500 iodepth_batch_complete_min=0";
            let result = disturbed(ground, line, "STOP", &["no answer for"]);
            ground.server()?.signal("CONT")?;
            result
        })
        .and_shared(),
        Case::full("fault: one of two servers is killed", |ground| {
            let other = ground.start_another()?;
            let names = format!("{}:{}", ground.name("here"), ground.name_at(other, "there"));
            let line = format!("rw=randrw bs=4k size=16m iodepth=32 filename={names}");
            disturbed(ground, &line, "KILL", &["Connection reset"])
        })
        .and_shared(),
        Case::quick("fault: nobody listens", |ground| {
            let listener = TcpListener::bind("127.0.0.1:0").map_err(|cause| cause.to_string())?;
            let port = listener.local_addr().map_err(|cause| cause.to_string())?.port();
            drop(listener);
            let line = format!("rw=read size=1m filename=/127.0.0.1/{port}/data/x");
            ground
                .fio_badly(&options(&line), &["Connection refused", "is raio-server running there"])
                .map(drop)
        }),
        Case::quick("fault: a port that accepts and says nothing", |ground| {
            let listener = TcpListener::bind("127.0.0.1:0").map_err(|cause| cause.to_string())?;
            let port = listener.local_addr().map_err(|cause| cause.to_string())?.port();
            let line = format!("rw=read size=1m connect_timeout_ms=700 filename=/127.0.0.1/{port}/data/x");
            let ran = ground.fio_badly(&options(&line), &["no answer for", "connect_timeout_ms"])?;
            in_time(&ran.time, Duration::from_millis(700))
        }),
        Case::quick("fault: names that are none say what they should be", |ground| {
            let (host, port) = ("127.0.0.1", ground.port());
            for (name, texts) in [
                ("/tmp/file".to_owned(), ["/HOST/PORT/PATH", "no path follows"]),
                (format!("/{host}/none/data/x"), ["/HOST/PORT/PATH", "65535"]),
                (format!("/{host}/{port}/nothing/x"), ["No such file", "/nothing/x"]),
                (format!("/{host}/{port}/data"), ["directory", "/data"]),
                (format!("/{host}/{port}/data/../../etc/passwd"), ["libraio", "/data/../../etc/passwd"]),
                ("/no-such-host.invalid/5555/data/x".to_owned(), ["no-such-host.invalid", "host and port"]),
            ] {
                let line = format!("rw=read size=1m create_on_open=1 filename={name}");
                ground.fio_badly(&options(&line), &texts)?;
            }
            Ok(())
        }),
        Case::quick("fault: writing to a read-only export", |ground| {
            fs::write(ground.data().join("file"), vec![7; 1 << 20]).map_err(|cause| cause.to_string())?;
            let name = ground.read_only_name("file");
            ground.fio_well(&options(&format!("rw=randread bs=4k filename={name}")))?;
            let texts = ["Read-only file system", "the export is read-only"];
            ground.fio_badly(&options(&format!("rw=randwrite bs=4k filename={name}")), &texts)?;
            ground
                .fio_badly(&options(&format!("rw=randwrite bs=4k size=2m filename={name}")), &texts)
                .map(drop)
        })
        .and_shared(),
        Case::quick("fault: the server's user has no right", no_right),
        Case::quick("fault: options that can't be followed are refused", |ground| {
            let name = ground.name("file");
            for (line, text) in [
                ("transport=carrier-pigeon", "carrier-pigeon"),
                ("key_file=/etc/hostname", "key_file"),
                ("io_submit_mode=offload", "offload"),
                ("iomem=mmap", "conflicts"),
                ("polling_us=forever", "forever"),
            ] {
                let line = format!("rw=randread bs=4k size=1m filename={name} {line}");
                ground.fio_badly(&options(&line), &[text])?;
            }
            Ok(())
        }),
        Case::quick("fault: direct I/O that does not fit is explained", |ground| {
            fs::write(ground.data().join("file"), vec![7; 1 << 20]).map_err(|cause| cause.to_string())?;
            let line = format!("rw=randread bs=1000 direct=1 size=100000 filename={}", ground.name("file"));
            ground.fio_badly(&options(&line), &["direct=1"]).map(drop)
        })
        .and_shared_in_full(),
    ]
}

/// Runs fio, does something to the first server in the middle, and expects an error in time.
fn disturbed(ground: &mut Ground, line: &str, signal: &str, texts: &[&str]) -> Result<()> {
    let mut all = options(line);
    all.extend(options("time_based=1 runtime=60"));
    if !line.contains("filename") {
        all.push(format!("filename_format={}", ground.name("file.$jobnum")));
    }
    let fio = ground.start_fio(&all)?;
    // Long enough for files to be laid out and I/O to run, on a busy machine too.
    std::thread::sleep(Duration::from_secs(3));
    if signal == "KILL" {
        ground.server()?.kill()?;
    } else {
        ground.server()?.signal(signal)?;
    }
    let ran = fio.wait()?;
    ran.failed_with(&all, texts)?;
    if ran.sum("read/total_ios") == 0 {
        return Err(format!("the server was disturbed before anything was read:\n{}", ran.text));
    }
    in_time(&ran.time, Duration::from_secs(3) + Duration::from_millis(1500))
}

fn in_time(time: &Duration, limit: Duration) -> Result<()> {
    if *time <= limit + GRACE {
        return Ok(());
    }
    Err(format!(
        "it took {:.1} s, and should have been over after {:.1} s",
        time.as_secs_f64(),
        limit.as_secs_f64()
    ))
}

/// A file that only somebody else may read, at a server that does not run as root.
fn no_right(ground: &mut Ground) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|cause| cause.to_string())?;
    let file = folder.path().join("file");
    fs::write(&file, vec![7; 1 << 20]).map_err(|cause| cause.to_string())?;
    let rights = |path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    rights(folder.path(), 0o755).and_then(|()| rights(&file, 0o000)).map_err(|cause| cause.to_string())?;
    let root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    let mut command = server_command();
    if root {
        if !packages::has_program("setpriv") {
            println!("fio: skipped: as root this needs setpriv (package util-linux)");
            return Ok(());
        }
        // Its program may lie where only root can go.
        let program = folder.path().join("raio-server");
        fs::copy(command.get_program(), &program).map_err(|cause| cause.to_string())?;
        command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    }
    let server = Server::start(&mut command, folder.path(), "tcp://127.0.0.1:0")?;
    let name = format!("/127.0.0.1/{}/data", server.port);
    let texts = ["Permission denied", "the user that the server runs as"];
    ground.fio_badly(&options(&format!("rw=read bs=4k filename={name}/file")), &texts)?;
    ground.fio_badly(&options(&format!("rw=write bs=4k size=64k filename={name}/new")), &texts).map(drop)
}
