//! Counts for the person at the terminal: a line per program, and where the instructions are.

use super::case::{Counts, Difference};

/// Functions that a profile shows.
const FUNCTIONS_MAX: usize = 30;
/// Calls per operation below which who copies is not worth a line.
const COPIES_LEAST: f64 = 0.1;
/// Instructions per operation below which a layer is not worth a line.
const LAYER_LEAST: f64 = 5.0;

/// Above the lines.
pub(crate) fn print_head() {
    println!(
        "  {:32} {:8} {:>12} {:>8} {:>8} {:>7} {:>7} {:>7} {:>8}",
        "per operation", "", "instructions", "", "system", "clock", "alloca-", "copies", "instruc."
    );
    println!(
        "  {:32} {:8} {:>12} {:>8} {:>8} {:>7} {:>7} {:>7} {:>8}",
        "", "", "", "change", "calls", "reads", "tions", "", "in copies"
    );
}

/// A line, with the change of the instructions since the baseline.
pub(crate) fn print_line(case: &str, side: &str, counts: &Counts, before: Option<&Counts>) {
    let Counts { instructions, system_calls, clock_reads, allocations, copies, copying } = counts;
    let change = before.map_or("new".to_owned(), |before| {
        format!("{:+.1} %", (instructions / before.instructions.max(1.0) - 1.0) * 100.0)
    });
    println!(
        "  {case:32} {side:8} {instructions:12.0} {change:>8} {system_calls:8.3} {clock_reads:7.3} {allocations:7.3} \
         {copies:7.2} {copying:8.0}"
    );
}

/// Where the instructions of one program are.
pub(crate) fn print_profile(case: &str, side: &str, difference: &Difference) {
    let all = difference.counts().instructions;
    for (what, name) in [("layer", layer as fn(&str) -> String), ("source file", file)] {
        println!("\n  {case}, {side}: instructions per operation, by the {what} they were written in");
        for (name, cost) in difference.files(name).iter().filter(|(_, cost)| *cost >= LAYER_LEAST) {
            println!("  {cost:9.0} {:5.1} %  {name}", cost / all * 100.0);
        }
    }
    println!("  {case}, {side}: by function, with what was inlined into it");
    for (function, cost) in difference.functions().iter().take(FUNCTIONS_MAX) {
        println!("  {cost:9.0} {:5.1} %  {function}", cost / all * 100.0);
    }
    println!("  {case}, {side}: calls of memcpy and its like per operation, by who calls");
    for (function, calls) in difference.copies().iter().filter(|(_, calls)| *calls >= COPIES_LEAST) {
        println!("  {calls:9.2}          {function}");
    }
}

/// A part of a program: `libxio/session`, `std`, `other crates`, or `libc and system`.
fn layer(path: &str) -> String {
    let file = file(path);
    let mut parts = file.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(package), Some(folder), Some(_)) => format!("{package}/{folder}"),
        (Some(package), Some(_), None) => package.to_owned(),
        _ if file == "std" || file == SYSTEM => file,
        _ => "other crates".to_owned(),
    }
}

/// What the parts of libc are called together, whose files have no common place.
const SYSTEM: &str = "libc and system";

/// A source file as people call it: `libxio/session/slots`, `std`, a crate's name, or `libc and system`.
fn file(path: &str) -> String {
    if let Some((before, after)) = path.rsplit_once("/src/") {
        let package = before.rsplit('/').next().unwrap_or(before);
        let is_foreign = path.contains("/registry/") || path.contains("/rust/deps/");
        return if path.contains("/library/") && path.contains("/rustc/") {
            "std".to_owned()
        } else if is_foreign {
            package.to_owned()
        } else {
            format!("{package}/{}", after.trim_end_matches(".rs"))
        };
    }
    if path.contains("/rustc/") { "std".to_owned() } else { SYSTEM.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_layers() {
        assert_eq!(file("/home/me/it/libxio/src/session/slots.rs"), "libxio/session/slots");
        assert_eq!(layer("/home/me/it/libxio/src/session/slots.rs"), "libxio/session");
        assert_eq!(layer("/home/me/it/raio/src/queue.rs"), "raio");
        assert_eq!(layer("/rustc/0123/library/core/src/ptr/mod.rs"), "std");
        assert_eq!(
            file("/home/me/.cargo/registry/src/index-1/io-uring-0.7.1/src/opcode.rs"),
            "io-uring-0.7.1"
        );
        assert_eq!(
            layer("/home/me/.cargo/registry/src/index-1/io-uring-0.7.1/src/opcode.rs"),
            "other crates"
        );
        assert_eq!(layer("./string/../sysdeps/x86_64/memcpy.S"), "libc and system");
        assert_eq!(layer("???"), "libc and system");
    }
}
