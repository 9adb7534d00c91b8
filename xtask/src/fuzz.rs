//! The fuzz targets of libxio, for a bounded time. libFuzzer works on stable Rust when the compiler's coverage pass is
//! asked for by name; the targets are a workspace of their own, because everything they use is built with it.

use crate::{child, compile, root, target};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// In the order in which they run.
const TARGETS: [&str; 4] = ["server", "client", "wire", "shared"];
/// The flags have to be kept from build scripts and procedural macros, which naming the platform does.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Coverage of edges and comparisons, as libFuzzer reads it.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// A build on busy cores takes a few minutes.
const BUILD_TIME: Duration = Duration::from_secs(1800);
/// Time beyond what a target was given, for its start, its last input and its end.
const SPARE_TIME: Duration = Duration::from_secs(60);
/// Most memory of a target in MiB; a growing one is a finding.
const MEMORY_MAX_MIB: u32 = 2048;
/// Longest time for one input in seconds; a longer one is a finding.
const INPUT_TIME_S: u32 = 20;

/// Builds the targets and runs each for its share of `seconds`, starting from the corpus in the source tree, which is not
/// changed. A C++ compiler has to be there.
///
/// # Errors
/// They don't build, or one has found something: the sentence names the input.
pub fn run(seconds: u64) -> Result<(), String> {
    let folder = root().join("libxio/fuzz");
    let built = target().join("fuzz");
    let mut build = compile::cargo(&["build", "--release", "--quiet", "--target", PLATFORM]);
    build.arg("--target-dir").arg(&built).env("RUSTFLAGS", FLAGS).current_dir(&folder);
    child::run(&mut build, BUILD_TIME)?;
    let share = (seconds / TARGETS.len() as u64).max(1);
    for name in TARGETS {
        let program = built.join(PLATFORM).join("release").join(name);
        fuzz(&program, name, &folder.join("corpus").join(name), share)?;
    }
    Ok(())
}

/// Runs one target.
fn fuzz(program: &Path, name: &str, corpus: &Path, seconds: u64) -> Result<(), String> {
    let found = target().join("fuzz/found");
    std::fs::create_dir_all(&found).map_err(|cause| format!("making {}: {cause}", found.display()))?;
    // New inputs go into the first folder, which lives as long as the run.
    let fresh = tempfile::tempdir().map_err(|cause| format!("making a folder for new inputs: {cause}"))?;
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"))
        .arg(format!("-timeout={INPUT_TIME_S}"))
        .args(["-max_len=4096", "-print_final_stats=1", "-verbosity=0"])
        .arg(format!("-artifact_prefix={}/{name}-", found.display()))
        .args([fresh.path(), corpus]);
    child::run(&mut command, Duration::from_secs(seconds) + SPARE_TIME).map_err(|sentence| {
        format!(
            "the fuzz target {name} has failed ({sentence}); the input is in {}, `{} INPUT` runs it alone",
            found.display(),
            program.display()
        )
    })
}
