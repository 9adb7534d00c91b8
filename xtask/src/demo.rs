//! The main job, shown: a server, a file copied to it and back with verification, fio against it, what was measured.

use crate::bench::Measured;
use crate::fio::Engine;
use crate::server::Server;
use crate::{Common, Result, child, compile, fio, packages, target};
use clap::Args;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Time limit of each step but building.
const STEP_TIME: Duration = Duration::from_secs(300);

/// Arguments of `cargo xtask demo`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// MiB of the file that is copied
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    mib: u64,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// A measurement's name and what came out.
type Row = (String, String);

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    packages::ensure(&[packages::BUILD, fio::PACKAGES].concat(), common)?;
    say("Building (the first time takes a few minutes)");
    compile::release()?;
    let engine = fio::build()?;
    // Beside what is built, so that it is a real file system and not a tmpfs, and goes when this ends.
    let folder = tempfile::Builder::new()
        .prefix("demo-")
        .tempdir_in(target())
        .map_err(|cause| format!("can't make a folder in {}: {cause}", target().display()))?;
    let served = folder.path().join("served");
    let source = folder.path().join("big.img");
    std::fs::create_dir(&served).map_err(|cause| format!("{}: {cause}", served.display()))?;
    make_file(&source, arguments.mib << 20)
        .map_err(|cause| format!("can't write {} MiB to {}: {cause}", arguments.mib, source.display()))?;

    say("Serving a folder");
    let export = format!("data={}", served.display());
    let mut command = Command::new(target().join("release/raio-server"));
    command.args(["--export", &export, "--listen", "tcp://127.0.0.1:0"]);
    println!("{}", child::line(&command));
    let server = Server::start_that_tells(&mut command)?;
    println!("listening {}", server.uri);
    let address = server.uri.trim_start_matches("tcp://").trim_end_matches('/').to_owned();
    let (folder_uri, uri) = (format!("raio://{address}/data"), format!("raio://{address}/data/big.img"));
    let fio_name = format!("--filename=/{}/data/verify.img", address.replace(':', "/"));

    let mut rows = Vec::new();
    copy(&uri, &source, &folder.path().join("back.img"))?;
    for (verb, what) in [("stat", &uri), ("ls", &folder_uri), ("ping", &uri), ("info", &uri)] {
        say(&format!("raio {verb} {what}"));
        child::run(&mut raio(&[verb, what]), STEP_TIME)?;
    }
    bench(&uri, arguments.seconds, &mut rows)?;
    fio_verify(&engine, &fio_name, folder.path())?;
    fio_rates(&engine, &fio_name, arguments.seconds, &mut rows)?;
    server.end();

    println!("\nMeasured on this machine, client and server on the same cores, over TCP loopback:\n");
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, figure) in &rows {
        println!("    {name:width$}  {figure}");
    }
    println!("\nAll copies and reads were verified. The server was stopped, and the files are removed.");
    Ok(())
}

fn say(text: &str) {
    println!("\n== {text}");
    // A pipe that is closed ends us at the next print anyway.
    let _ = io::stdout().flush();
}

fn raio(words: &[&str]) -> Command {
    let mut command = Command::new(target().join("release/raio"));
    command.args(words);
    command
}

/// There and back, each verified, and the result compared byte by byte.
fn copy(uri: &str, source: &Path, back: &Path) -> Result<()> {
    say(&format!("raio cp big.img {uri} --verify"));
    child::run(raio(&["cp"]).arg(source).args([uri, "--verify"]), STEP_TIME)?;
    say(&format!("raio cp {uri} back.img --verify"));
    child::run(raio(&["cp", uri]).arg(back).arg("--verify"), STEP_TIME)?;
    child::run(Command::new("cmp").arg(source).arg(back), STEP_TIME)
        .map_err(|_| "the file that came back differs from the one that was sent".to_owned())?;
    println!("the copy is the same, byte by byte");
    std::fs::remove_file(back).map_err(|cause| format!("{}: {cause}", back.display()))
}

fn bench(uri: &str, seconds: u64, rows: &mut Vec<Row>) -> Result<()> {
    for (rw, bs, depth) in [("randread", "4k", "1"), ("randread", "4k", "32"), ("read", "1M", "4")] {
        let time = seconds.to_string();
        let arguments = ["bench", uri, "--rw", rw, "--bs", bs, "--depth", depth, "--time", &time];
        say(&format!("raio {}", arguments.join(" ")));
        let text = child::output(raio(&arguments).arg("--json"), STEP_TIME)?;
        let measured = Measured::from_raio(&text)?;
        rows.push((format!("raio bench, {rw} of {bs}, depth {depth}"), figures(&measured)));
    }
    Ok(())
}

fn figures(measured: &Measured) -> String {
    let Measured { rate, bytes_per_second, p50_ns, .. } = measured;
    let (megabytes, median) = (bytes_per_second / 1e6, p50_ns / 1e3);
    format!("{rate:>9.0} operations/s  {megabytes:>8.1} MB/s  median {median:>7.1} us")
}

/// fio's own verification: random writes and reads with checksums in every block.
fn fio_verify(engine: &Engine, name: &str, folder: &Path) -> Result<()> {
    let mut command = engine.command();
    command.args(["--name=verify", "--ioengine=libraio", "--thread", name, "--rw=randrw", "--size=64M"]);
    command.args(["--bssplit=512/20:4k/40:64k/30:1m/10", "--iodepth=32", "--verify=crc32c"]);
    command.args(["--verify_fatal=1", "--verify_state_save=0"]).current_dir(folder);
    say(&child::line(&command));
    child::output(&mut command, STEP_TIME)?;
    println!("all that was written was read back and verified");
    Ok(())
}

fn fio_rates(engine: &Engine, name: &str, seconds: u64, rows: &mut Vec<Row>) -> Result<()> {
    for rw in ["randread", "randwrite"] {
        let mut command = engine.command();
        command.args([
            "--name=rate",
            "--ioengine=libraio",
            "--thread",
            name,
            &format!("--rw={rw}"),
            "--bs=4k",
        ]);
        command.args(["--size=64M", "--iodepth=32", "--time_based", &format!("--runtime={seconds}")]);
        say(&child::line(&command));
        let text = child::output(command.arg("--output-format=json"), STEP_TIME)?;
        let measured = Measured::from_fio(&text)?;
        rows.push((format!("fio libraio, {rw} of 4k, depth 32"), figures(&measured)));
    }
    Ok(())
}

/// A file of bytes that can't be compressed or deduplicated.
fn make_file(path: &Path, bytes: u64) -> io::Result<()> {
    let mut random = File::open("/dev/urandom")?.take(bytes);
    io::copy(&mut random, &mut File::create_new(path)?)?;
    Ok(())
}
