//! The house rules that a program can check: how files begin, how long they are, where `unsafe` may live, which
//! licences dependencies have, that links between documents lead somewhere.

use crate::compile::cargo;
use crate::{Result, child, root};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longest source file in lines, tests included. A file with one noun as its subject fits on a few screens.
const LINES_MAX: usize = 600;

/// Where `unsafe` may live; every other source file forbids it.
const UNSAFE_PLACES: &[&str] = &[
    "libxio/src/sys/",
    "libxio/src/mem/",
    "libxio/src/reactor/",
    "libxio/src/transport/shm",
    "libxio/src/transport/rdma",
    "raio-server/src/sys.rs",
    "raio/src/borrow.rs",
    "raio/src/asynchronous/tokio.rs",
    "libraio/src/",
    "examples/src/bin/external_loop_tokio.rs",
    "fio-engine/src/",
    "xtask/src/child.rs",
];

/// Licences that go together with ours.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unlicense",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unicode-3.0",
    "MIT-0",
];

const QUERY_TIME: Duration = Duration::from_secs(300);

/// Checks them all.
///
/// # Errors
/// A line per breach.
pub(crate) fn check() -> Result<()> {
    let listed = child::output(Command::new("git").args(["ls-files"]).current_dir(root()), QUERY_TIME)?;
    let mut breaches = Vec::new();
    for name in listed.lines() {
        // A file that was removed and is not committed yet is listed still; one that is no text has no rules.
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        if name.ends_with(".rs") {
            check_source(name, &text, &mut breaches);
        }
        if name.ends_with(".md") {
            check_links(name, &text, &mut breaches);
        }
    }
    check_licences(&mut breaches)?;
    if breaches.is_empty() { Ok(()) } else { Err(format!("house rules:\n{}", breaches.join("\n"))) }
}

fn check_source(name: &str, text: &str, breaches: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        breaches.push(format!("{name}: {lines} lines, more than {LINES_MAX}: give it one subject"));
    }
    if !text.starts_with("//!") {
        breaches.push(format!("{name}: does not begin with //! and what it is"));
    }
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let unsafe_word = concat!("unsafe", " ");
    let tests = name.contains("/tests/") || name.contains("/benches/") || name.contains("/fuzz/");
    let allowed = tests || UNSAFE_PLACES.iter().any(|place| name.starts_with(place));
    let uses = |line: &str| line.contains(unsafe_word) && !line.contains('"') && !line.contains("forbid");
    if !allowed && text.lines().filter(code).any(uses) {
        breaches.push(format!("{name}: unsafe code has no place here (see docs/ARCHITECTURE.md)"));
    }
}

/// Relative links in Markdown lead to files.
fn check_links(name: &str, text: &str, breaches: &mut Vec<String>) {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    for part in text.split("](").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        let file = target.split('#').next().unwrap_or_default();
        if file.is_empty() || file.contains("://") || file.contains(' ') {
            continue;
        }
        if !root().join(folder).join(file).exists() {
            breaches.push(format!("{name}: the link {target} leads nowhere"));
        }
    }
}

/// Every dependency's licence offers one that is allowed.
fn check_licences(breaches: &mut Vec<String>) -> Result<()> {
    let text = child::output(&mut cargo(&["metadata", "--format-version", "1", "--locked"]), QUERY_TIME)?;
    let metadata: Value = serde_json::from_str(&text).map_err(|cause| format!("cargo metadata: {cause}"))?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        // What stands in this workspace; the fio engine is GPL because fio is.
        if package["source"].is_null() {
            continue;
        }
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence) {
            breaches
                .push(format!("dependency {name}: its licence {licence:?} is not among the allowed ones"));
        }
    }
    Ok(())
}

/// Whether an SPDX expression can be met: all parts of an AND, one of an OR.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ").replace(['(', ')'], "");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_read_as_expressions() {
        assert!(is_allowed("MIT OR Apache-2.0"));
        assert!(is_allowed("MIT/Apache-2.0"));
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!is_allowed("GPL-3.0-only"));
        assert!(!is_allowed("MIT AND GPL-3.0-only"));
        assert!(!is_allowed(""));
    }

    #[test]
    fn the_map_lists_the_places_of_unsafe_code() {
        let map = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap_or_default();
        let missing: Vec<_> =
            UNSAFE_PLACES.iter().filter(|place| !map.contains(&format!("`{place}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn breaches_are_found() {
        let mut breaches = Vec::new();
        check_source("libxio/src/wire/frame.rs", concat!("fn f() { uns", "afe { g() } }"), &mut breaches);
        assert_eq!(breaches.len(), 2, "{breaches:?}");
        check_links("docs/X.md", "see [this](NO-SUCH-FILE.md)", &mut breaches);
        assert_eq!(breaches.len(), 3, "{breaches:?}");
    }
}
