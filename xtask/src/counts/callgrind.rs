//! Reads what callgrind writes: instructions, calls of the allocator, instructions spent in copying.

use std::collections::HashMap;

/// What one run cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
    /// Within memcpy, memmove and memset: a payload that is copied shows here.
    pub(crate) copying: u64,
}

/// Functions of the allocator that give memory out.
const ALLOCATORS: &[&str] = &["malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "memalign"];
/// What the names of libc's copying functions contain.
const COPIERS: &[&str] = &["memcpy", "memmove", "memset", "mempcpy"];

/// Of the text of a callgrind output file.
///
/// Lines (valgrind's manual, "Callgrind Format Specification"): `fn=(ID) NAME` begins a function, the name only the first
/// time; `cfn=` names one that it calls, `calls=COUNT POSITION` how often, and the line after that is the cost of those
/// calls, which does not belong to the function itself; all other lines that begin with a position are its own cost.
pub(crate) fn parse(text: &str) -> Option<Profile> {
    let mut names: HashMap<String, Kind> = HashMap::new();
    let mut profile = Profile::default();
    let (mut current, mut called) = (Kind::Other, Kind::Other);
    let mut is_of_calls = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("fn=") {
            current = kind(rest, &mut names);
        } else if let Some(rest) = line.strip_prefix("cfn=") {
            called = kind(rest, &mut names);
        } else if let Some(rest) = line.strip_prefix("calls=") {
            if called == Kind::Allocator {
                profile.allocations += rest.split_whitespace().next()?.parse::<u64>().ok()?;
            }
            is_of_calls = true;
        } else if let Some(rest) = line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")) {
            profile.instructions = rest.split_whitespace().next()?.parse().ok()?;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
            if !is_of_calls && current == Kind::Copier {
                profile.copying += line.split_whitespace().nth(1)?.parse::<u64>().ok()?;
            }
            is_of_calls = false;
        }
    }
    (profile.instructions > 0).then_some(profile)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Allocator,
    Copier,
    Other,
}

/// Of `(12) malloc`, or of `(12)` after that.
fn kind(text: &str, names: &mut HashMap<String, Kind>) -> Kind {
    let Some((number, name)) = text.split_once(')') else { return Kind::Other };
    let name = name.trim();
    if name.is_empty() {
        return names.get(number).copied().unwrap_or(Kind::Other);
    }
    // Recursion is told by a suffix `'2`, the library's version by `@@`.
    let plain = name.split(['\'', '@']).next().unwrap_or(name);
    let kind = if ALLOCATORS.contains(&plain) {
        Kind::Allocator
    } else if plain.starts_with('_') || COPIERS.contains(&plain) {
        if COPIERS.iter().any(|copier| plain.contains(copier)) { Kind::Copier } else { Kind::Other }
    } else {
        Kind::Other
    };
    names.insert(number.to_owned(), kind);
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_allocations_and_copies_are_counted() {
        let text = "\
events: Ir
fl=(1) x.rs
fn=(1) work
10 5
cfn=(2) malloc
calls=3 0
10 100
+1 7
cfn=(3) __memcpy_avx_unaligned_erms
calls=2 0
* 40

fn=(2)
0 100
cfn=(4) __memmove_x
calls=1 0
0 9
fn=(3)
0 40
fn=(4)
0 9
fn=(5)
12 1
cfn=(2)
calls=4 0
12 50
totals: 300
";
        let expected = Profile { instructions: 300, allocations: 7, copying: 49 };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("nonsense"), None);
    }
}
