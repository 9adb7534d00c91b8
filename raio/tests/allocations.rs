//! Once warm, reads and writes allocate nothing in the client.

#![allow(clippy::unwrap_used, reason = "a test")]

mod counting;
mod fake;

use counting::{once_warm, serve};
use raio::{File, OpenOptions, Queue};

#[test]
fn a_queue() {
    let fake = serve();
    let uri = format!("{}x", fake.uri);
    let mut queue = Queue::open(&uri, OpenOptions::new().read(true).write(true), 32).unwrap();
    let allocations = once_warm(400, |_| {
        for token in 0..16 {
            let buffer = queue.buffer(4096).unwrap();
            queue.submit_read(token * 4096, 4096, token).unwrap();
            queue.submit_write(token * 4096, buffer, token).unwrap();
        }
        assert_eq!(queue.wait(32, None).unwrap(), 32);
        while let Some(completion) = queue.next() {
            assert_eq!(completion.result.unwrap().bytes(), 4096);
        }
    });
    assert_eq!(allocations, 0);
}

#[test]
fn a_file() {
    let fake = serve();
    let file: File = OpenOptions::new().read(true).write(true).open(&format!("{}x", fake.uri)).unwrap();
    let mut buffer = vec![0; 16 << 10];
    let allocations = once_warm(400, |_| {
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), buffer.len());
        assert_eq!(file.write_at(&buffer, 0).unwrap(), buffer.len());
    });
    assert_eq!(allocations, 0);
}
