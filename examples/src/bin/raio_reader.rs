//! Reads a remote file from its beginning to its end with many reads in flight, as `examples/c/raio_reader.c` does in C.
//!
//! `cargo run --release --bin raio_reader -- raio://127.0.0.1:5555/data/big.img [BLOCK [DEPTH]]`

use raio::{OpenOptions, Queue};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u32| match arguments.get(index) {
        Some(text) => text.parse().ok().filter(|number| *number > 0),
        None => Some(default),
    };
    let (Some(uri), Some(block), Some(depth)) = (arguments.first(), number(1, 1 << 20), number(2, 1024))
    else {
        eprintln!("usage: raio_reader URI [BLOCK [DEPTH]]; BLOCK and DEPTH are numbers from 1");
        return ExitCode::from(2);
    };
    match read(uri, block, depth as usize) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raio_reader: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(uri: &str, block: u32, depth: usize) -> raio::Result<()> {
    let mut queue = Queue::open(uri, OpenOptions::new().read(true), depth)?;
    let block = block.min(queue.io_bytes_max());
    let size = queue.attributes().size;
    let (mut asked, mut done, mut sum) = (0, 0, 0_u64);
    let start = Instant::now();
    while done < size {
        while asked < size && queue.room() > 0 {
            let length = u64::from(block).min(size - asked);
            // At most a block.
            queue.submit_read(asked, length as u32, asked)?;
            asked += length;
        }
        queue.wait(1, None)?;
        while let Some(completion) = queue.next() {
            let outcome = completion.result?;
            let wanted = u64::from(block).min(size - completion.token);
            if outcome.bytes() as u64 != wanted {
                return Err(raio::Error::UnexpectedEnd {
                    path: queue.path().into(),
                    offset: completion.token + outcome.bytes() as u64,
                });
            }
            done += wanted;
            sum = sum.wrapping_add(sum_of(&outcome.into_data(), completion.token));
        }
    }
    let took = start.elapsed().as_secs_f64();
    let rate = if took > 0.0 { done as f64 / took / 1e6 } else { 0.0 };
    println!("{done} bytes, sum {sum:016x}, {took:.3} s, {rate:.1} MB/s");
    queue.close()
}

/// A sum that does not depend on the order in which the blocks arrive: FNV-1a over each block, to be added up.
fn sum_of(data: &raio::libxio::Sgl, offset: u64) -> u64 {
    let start = 14_695_981_039_346_656_037 ^ offset;
    let bytes = data.pieces().iter().filter_map(raio::libxio::Buffer::try_as_slice).flatten();
    bytes.fold(start, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211))
}
