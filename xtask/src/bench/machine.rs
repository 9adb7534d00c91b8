//! What the results were measured on, and with which versions.

use crate::child;
use std::process::Command;
use std::time::Duration;

const QUERY_TIME: Duration = Duration::from_secs(20);

/// Load of the last minute above which figures are not worth keeping.
pub(crate) const LOAD_MAX: f64 = 0.5;

/// `name: value` lines about the machine.
pub(crate) fn describe() -> Vec<(String, String)> {
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or("?").trim();
    vec![
        ("processor".to_owned(), format!("{} x{cores}", model.trim_start_matches([' ', '\t', ':']))),
        ("memory".to_owned(), memory.to_owned()),
        ("kernel".to_owned(), read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("mitigations".to_owned(), mitigations()),
        ("rustc".to_owned(), first_line("rustc", "--version")),
        ("commit".to_owned(), commit()),
    ]
}

/// Versions of the peers.
pub(crate) fn versions(programs: &[(&str, &str)]) -> Vec<(String, String)> {
    programs.iter().map(|(name, argument)| ((*name).to_owned(), first_line(name, argument))).collect()
}

/// The load of the last minute.
pub(crate) fn load() -> f64 {
    read("/proc/loadavg").split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn mitigations() -> String {
    let line = read("/proc/cmdline");
    let word = line.split_whitespace().find(|word| word.starts_with("mitigations="));
    word.map_or("as the kernel chooses", |word| &word["mitigations=".len()..]).to_owned()
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(crate::root());
    child::output(&mut git, QUERY_TIME).map_or("?".to_owned(), |text| text.trim().to_owned())
}

fn first_line(program: &str, argument: &str) -> String {
    let text = child::output(Command::new(program).arg(argument), QUERY_TIME);
    text.ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or("not there".to_owned())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
