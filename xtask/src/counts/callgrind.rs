//! Reads what callgrind writes: instructions, system calls, calls of the allocator and of libc's copying functions, and
//! where the instructions are, by function and by source file.

use std::collections::HashMap;

/// What one run cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) instructions: u64,
    /// Without reading clocks, which is none outside valgrind, and without the pauses of the program that is counted.
    pub(crate) system_calls: u64,
    /// Reading a clock takes some 20 to 40 ns outside valgrind, which these instructions do not show.
    pub(crate) clock_reads: u64,
    pub(crate) allocations: u64,
    /// Calls of memcpy, memmove and memset.
    pub(crate) copies: u64,
    /// Instructions within them: a payload that is copied shows here.
    pub(crate) copying: u64,
    /// Instructions of a function's own, with what was inlined into it.
    pub(crate) by_function: HashMap<String, u64>,
    /// Instructions by the file that they were written in, inlined or not.
    pub(crate) by_file: HashMap<String, u64>,
    /// Calls of memcpy, memmove and memset by the function that calls.
    pub(crate) copies_by_caller: HashMap<String, u64>,
}

/// Functions of the allocator that give memory out.
const ALLOCATORS: &[&str] = &["malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "memalign"];
/// What the names of libc's copying functions contain.
const COPIERS: &[&str] = &["memcpy", "memmove", "memset", "mempcpy"];

/// Of the text of a callgrind output file, written with `--collect-systime=yes`.
///
/// Lines (valgrind's manual, "Callgrind Format Specification"): `events:` names the columns; `fn=(ID) NAME` begins a
/// function and `fl=`, `fi=`, `fe=` a file, the name only the first time; `cfn=` names a function that is called, `calls=COUNT
/// POSITION` how often, and the line after that is the cost of those calls, which does not belong to the function itself; all
/// other lines that begin with a position are its own cost.
pub(crate) fn parse(text: &str) -> Option<Profile> {
    let (mut functions, mut files) = (Names::default(), Names::default());
    let (mut instructions_column, mut calls_column) = (None, None);
    let mut profile = Profile::default();
    let (mut function, mut file, mut called) = (0, 0, 0);
    let (mut of_functions, mut of_files) = (HashMap::<u64, u64>::new(), HashMap::<u64, u64>::new());
    let mut of_callers = HashMap::<u64, u64>::new();
    let mut is_of_calls = false;
    for line in text.lines() {
        if let Some((key, rest)) = line.split_once('=')
            && key.bytes().all(|byte| byte.is_ascii_alphabetic())
        {
            match key {
                "fn" => function = functions.learn(rest)?,
                "cfn" => called = functions.learn(rest)?,
                "fl" | "fi" | "fe" => file = files.learn(rest)?,
                "cfl" | "cfi" => drop(files.learn(rest)?),
                "calls" => {
                    let count: u64 = rest.split_whitespace().next()?.parse().ok()?;
                    match functions.kind(called) {
                        Kind::Allocator => profile.allocations += count,
                        Kind::Copier => {
                            profile.copies += count;
                            *of_callers.entry(function).or_default() += count;
                        }
                        _ => {}
                    }
                    is_of_calls = true;
                }
                _ => {}
            }
        } else if let Some(names) = line.strip_prefix("events:") {
            let column = |name| names.split_whitespace().position(|word| word == name);
            (instructions_column, calls_column) = (column("Ir"), column("sysCount"));
        } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
            if std::mem::take(&mut is_of_calls) {
                continue;
            }
            // Zeros at the end are left out.
            let costs: Vec<u64> =
                line.split_whitespace().skip(1).map(|word| word.parse().ok()).collect::<Option<_>>()?;
            let cost =
                |column: Option<usize>| column.and_then(|column| costs.get(column)).copied().unwrap_or(0);
            let instructions = cost(instructions_column);
            profile.instructions += instructions;
            *of_functions.entry(function).or_default() += instructions;
            *of_files.entry(file).or_default() += instructions;
            match functions.kind(function) {
                Kind::Copier => profile.copying += instructions,
                Kind::Clock => profile.clock_reads += cost(calls_column),
                Kind::Sleeper => {}
                Kind::Allocator | Kind::Other => profile.system_calls += cost(calls_column),
            }
        }
    }
    profile.by_function = functions.resolve(of_functions);
    profile.copies_by_caller = functions.resolve(of_callers);
    profile.by_file = files.resolve(of_files);
    (profile.instructions > 0).then_some(profile)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Allocator,
    Copier,
    Clock,
    Sleeper,
    Other,
}

/// Names by their numbers.
#[derive(Debug, Default)]
struct Names(HashMap<u64, (String, Kind)>);

impl Names {
    /// Of `(12) malloc`, or of `(12)` after that: the number.
    fn learn(&mut self, text: &str) -> Option<u64> {
        let (number, name) = text.strip_prefix('(')?.split_once(')')?;
        let number = number.parse().ok()?;
        let name = name.trim();
        if !name.is_empty() {
            // Recursion is told by a suffix `'2`, the library's version by `@@`.
            let plain = name.split(['\'', '@']).next().unwrap_or(name);
            self.0.insert(number, (plain.to_owned(), kind(plain)));
        }
        Some(number)
    }

    fn kind(&self, number: u64) -> Kind {
        self.0.get(&number).map_or(Kind::Other, |(_, kind)| *kind)
    }

    fn resolve(&self, costs: HashMap<u64, u64>) -> HashMap<String, u64> {
        let mut named = HashMap::new();
        for (number, cost) in costs {
            let name = self.0.get(&number).map_or("?", |(name, _)| name);
            *named.entry(name.to_owned()).or_default() += cost;
        }
        named
    }
}

fn kind(plain: &str) -> Kind {
    let is_copier = || plain.starts_with('_') && COPIERS.iter().any(|copier| plain.contains(copier));
    match plain {
        _ if ALLOCATORS.contains(&plain) => Kind::Allocator,
        _ if COPIERS.contains(&plain) || is_copier() => Kind::Copier,
        _ if plain.contains("clock_gettime") => Kind::Clock,
        _ if plain.contains("nanosleep") => Kind::Sleeper,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
version: 1
cmd:  program --a=(b)
positions: line
events: Ir sysCount sysTime
summary: 239 9 7
fl=(1) x.rs
fn=(1) work
10 5
cfi=(2) libc.c
cfn=(2) malloc
calls=3 0
10 100
fi=(2)
+1 7 2 5
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
fn=(6) clock_gettime@@GLIBC_2.17
0 3 4 2
fn=(7) clock_nanosleep@@GLIBC_2.17
0 3 3
totals: 168 9 7
";

    #[test]
    fn what_is_counted_is_read() {
        let profile = parse(TEXT).unwrap();
        assert_eq!((profile.instructions, profile.allocations), (168, 7));
        assert_eq!((profile.copies, profile.copying), (3, 49));
        assert_eq!((profile.system_calls, profile.clock_reads), (2, 4));
        assert_eq!((profile.by_function["work"], profile.copies_by_caller["work"]), (12, 2));
        assert_eq!((profile.by_file["x.rs"], profile.by_file["libc.c"]), (5, 163));
        assert_eq!(parse("nonsense"), None);
    }
}
