//! `raio cp`: blocks are read and written with a number of them in flight, whatever the two sides are.

mod end;
mod verify;

use super::failure::Failure;
use super::place::Place;
use super::{Common, Done, say, size};
use end::{End, Source, Target};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use libxio::Sgl;
use serde_json::json;
use std::io::{self, IsTerminal};
use std::time::Instant;

/// Arguments of `raio cp`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file to copy: a path or a uri
    source: String,
    /// Where to: a path or a uri; in a directory the file keeps its name
    target: String,
    /// Read the target back and compare checksums (CRC-32C)
    #[arg(long)]
    verify: bool,
    /// Replace a file that exists
    #[arg(short, long)]
    force: bool,
    /// Length of one read or write
    #[arg(long, default_value = "1M", value_parser = size::block)]
    block_size: u32,
    /// Blocks in flight
    #[arg(long, default_value = "16", value_parser = size::count)]
    depth: usize,
    /// Don't wait until the target is on stable storage
    #[arg(long)]
    no_sync: bool,
}

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Done {
    let (source, target) = (Place::parse(&arguments.source)?, Place::parse(&arguments.target)?);
    if let (Place::Local(_), Place::Local(_)) = (&source, &target) {
        let text = "source and target are both on this machine".to_owned();
        return Err(Failure::usage(
            text,
            Some("one of them is a uri, like raio://127.0.0.1:5555/data/file".into()),
        ));
    }
    let options = common.client_options();
    let mut from = Source::open(&source, &options, arguments.depth)?;
    let (target, mut to) = Target::open(&target, &source, &from, &options, arguments)?;
    let length = from.length();
    let plan = Plan {
        length,
        block: arguments.block_size.min(from.end.block_max()).min(to.end.block_max()),
        depth: arguments.depth,
    };
    let start = Instant::now();
    let bar = progress(length * if arguments.verify { 2 } else { 1 }, common);
    let copied = copy(&plan, &mut from.end, &mut to.end, &bar).and_then(|sums| {
        if !arguments.no_sync {
            to.end.sync()?;
        }
        Ok(sums)
    });
    let sums = copied.map_err(|failure| failure.with_partial(&target, to.is_new()))?;
    let seconds = start.elapsed().as_secs_f64();
    if arguments.verify {
        bar.set_message("verify");
        verify::compare(&plan, &mut to.end, &sums, &target, &bar)?;
    }
    bar.finish_and_clear();
    from.end.close()?;
    to.end.close()?;
    let sum = arguments.verify.then(|| format!("{:08x}", sums.whole(&plan)));
    report(common, &source, &target, length, seconds, sum)
}

/// What is moved, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Bytes in all.
    pub(super) length: u64,
    /// Bytes at a time.
    pub(super) block: u32,
    /// Blocks at a time.
    pub(super) depth: usize,
}

impl Plan {
    /// How many blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.length.div_ceil(u64::from(self.block))
    }

    /// Where a block begins.
    pub(super) fn offset(&self, block: u64) -> u64 {
        block * u64::from(self.block)
    }

    /// How long it is; only the last may be shorter.
    pub(super) fn length_of(&self, block: u64) -> u32 {
        // At most `self.block`.
        (self.length - self.offset(block)).min(u64::from(self.block)) as u32
    }
}

/// Moves all blocks and returns their checksums.
fn copy(plan: &Plan, from: &mut End, to: &mut End, bar: &ProgressBar) -> Result<verify::Sums, Failure> {
    let mut sums = verify::Sums::new(plan);
    let (mut next, mut reading, mut writing) = (0, 0, 0);
    // A block's life: read here or submitted; then written here or submitted; then done.
    let mut arrived = |block: u64, data: Sgl, to: &mut End, writing: &mut usize| -> Done {
        if data.len() < plan.length_of(block) as usize {
            return Err(Failure::Other {
                what: "read",
                place: "the source".to_owned(),
                why: format!("it became shorter while it was copied, at byte {}", plan.offset(block)),
                advice: None,
            });
        }
        sums.set(block, &data);
        if to.write(plan.offset(block), data, block)? {
            bar.inc(u64::from(plan.length_of(block)));
        } else {
            *writing += 1;
        }
        Ok(())
    };
    while next < plan.blocks() || reading + writing > 0 {
        while next < plan.blocks() && reading + writing < plan.depth {
            let block = next;
            next += 1;
            match from.read(plan.offset(block), plan.length_of(block), block)? {
                Some(data) => arrived(block, data, to, &mut writing)?,
                None => reading += 1,
            }
        }
        end::wait_any(from, reading, to, writing)?;
        while let Some((block, data)) = from.next_read()? {
            reading -= 1;
            arrived(block, data, to, &mut writing)?;
        }
        while let Some((block, written)) = to.next_written()? {
            writing -= 1;
            if written < plan.length_of(block) as usize {
                return Err(Failure::Other {
                    what: "write",
                    place: "the target".to_owned(),
                    why: format!("only {written} bytes were taken at byte {}", plan.offset(block)),
                    advice: Some("is its file system full?".to_owned()),
                });
            }
            bar.inc(u64::from(plan.length_of(block)));
        }
    }
    Ok(sums)
}

impl Failure {
    /// Names what is left behind.
    fn with_partial(self, target: &Place, is_new: bool) -> Failure {
        let state = if is_new { "is incomplete: remove it or copy again" } else { "was partly overwritten" };
        eprintln!("raio: {target}: the target {state}");
        self
    }
}

fn progress(length: u64, common: &Common) -> ProgressBar {
    if common.json() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let template = "{msg:>6} [{bar:40}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message("copy");
    bar
}

fn report(
    common: &Common,
    source: &Place,
    target: &Place,
    length: u64,
    seconds: f64,
    sum: Option<String>,
) -> Done {
    if common.json() {
        return say::json(&json!({
            "source": source.to_string(),
            "target": target.to_string(),
            "bytes": length,
            "seconds": seconds,
            "verified": sum.is_some(),
            "crc32c": sum,
        }));
    }
    let rate = size::show_bytes((length as f64 / seconds.max(1e-9)) as u64);
    let verified = sum.map_or(String::new(), |sum| format!(", read back and verified: CRC-32C {sum}"));
    say::line(format!("{target}: {} in {seconds:.2} s ({rate}/s){verified}", size::show_bytes(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_file() {
        for (length, block) in [(0, 4), (1, 4), (4, 4), (9, 4), (1 << 40, 1 << 20)] {
            let plan = Plan { length, block, depth: 1 };
            let last = plan.blocks().checked_sub(1);
            assert_eq!(last.map_or(0, |last| plan.offset(last) + u64::from(plan.length_of(last))), length);
        }
    }
}
