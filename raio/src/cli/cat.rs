//! `raio cat`.

use super::failure::Failure;
use super::{Common, Done, place, say, size};
use libxio::Sgl;
use raio::{OpenOptions, Queue};
use std::collections::VecDeque;

/// Arguments of `raio cat`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file
    uri: String,
    /// Start here
    #[arg(long, default_value = "0", value_parser = size::bytes)]
    offset: u64,
    /// Stop after so many bytes
    #[arg(long, value_parser = size::bytes)]
    length: Option<u64>,
}

/// Length of one read in bytes.
const BLOCK_BYTES: u32 = 512 << 10;

/// Reads in flight.
const DEPTH: usize = 8;

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Done {
    let uri = place::remote(&arguments.uri)?;
    let mut options = OpenOptions::new();
    options.read(true).client(common.client_options());
    let failed = Failure::at(&uri);
    let mut queue = Queue::open(&arguments.uri, &options, DEPTH).map_err(&failed)?;
    let block = BLOCK_BYTES.min(queue.io_bytes_max());
    let end = arguments
        .length
        .map_or(i64::MAX as u64, |length| arguments.offset.saturating_add(length).min(i64::MAX as u64));
    let mut next = arguments.offset;
    // Reads in flight, in the file's order: length, and what arrived.
    let mut window: VecDeque<(u32, Option<Sgl>)> = VecDeque::new();
    let mut first = 0;
    loop {
        while queue.room() > 0 && next < end {
            // A block fits `u32`, so the least of the two does.
            let length = (end - next).min(u64::from(block)) as u32;
            queue.submit_read(next, length, first + window.len() as u64).map_err(&failed)?;
            window.push_back((length, None));
            next += u64::from(length);
        }
        if window.is_empty() {
            break;
        }
        queue.wait(1, None).map_err(&failed)?;
        while let Some(completion) = queue.next() {
            let data = completion.result.map_err(&failed)?.into_data();
            // Tokens count up from `first`, and the window has one entry for each in flight.
            window[(completion.token - first) as usize].1 = Some(data);
        }
        while let Some((length, Some(data))) = window.pop_front_if(|(_, data)| data.is_some()) {
            first += 1;
            print(&data)?;
            if data.len() < length as usize {
                return queue.close().map_err(&failed);
            }
        }
    }
    queue.close().map_err(&failed)
}

fn print(data: &Sgl) -> Result<(), Failure> {
    for piece in data.pieces() {
        match piece.try_as_slice() {
            Some(bytes) => say::bytes(bytes)?,
            None => say::bytes(&piece.to_vec())?,
        }
    }
    Ok(())
}
