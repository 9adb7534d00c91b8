//! The side that answers.

use crate::ring::Ring;
use crate::{OFFSET_BYTES, Shape};
use bench::{Result, failed};
use std::fs::{File, OpenOptions};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is read and written.
#[derive(Debug)]
pub(crate) enum Store {
    /// Nothing: zeros come, data goes.
    Null,
    /// A file of so many blocks.
    File(File, u64),
    /// The server's own memory, of so many blocks.
    Memory(Vec<u8>, u64),
}

/// Blocks of the null device, for the sake of having offsets.
const NULL_BLOCKS: u64 = 1 << 16;

impl Store {
    /// Opens the file, if there is one.
    pub(crate) fn open(path: Option<&Path>, shape: &Shape) -> Result<Store> {
        let Some(path) = path else { return Ok(Store::Null) };
        let name = path.display();
        let file = OpenOptions::new().read(true).write(shape.writes).open(path);
        let file = file.map_err(failed(format!("opening {name}")))?;
        let length = file.metadata().map_err(failed(format!("looking at {name}")))?.len();
        match length.checked_div(shape.data as u64) {
            Some(blocks @ 1..) => Ok(Store::File(file, blocks)),
            _ => Err(format!("{name}: its {length} bytes are less than one block of {}", shape.data)),
        }
    }

    /// Memory of so many bytes, all of it there already.
    pub(crate) fn memory(length: usize, shape: &Shape) -> Result<Store> {
        match length.checked_div(shape.data) {
            // Zeros alone would be pages that are not there until they are read.
            Some(blocks @ 1..) => Ok(Store::Memory(vec![1; length], blocks as u64)),
            _ => Err(format!("--memory: {length} bytes are less than one block of {}", shape.data)),
        }
    }

    /// Blocks that there are.
    pub(crate) fn blocks(&self) -> u64 {
        match self {
            Store::Null => NULL_BLOCKS,
            Store::File(_, blocks) | Store::Memory(_, blocks) => *blocks,
        }
    }

    /// Fills `data` with what is at the offset; of a null device it stays as it is.
    pub(crate) fn read(&self, data: &mut [u8], offset: u64) -> std::io::Result<()> {
        match self {
            Store::Null => Ok(()),
            Store::File(file, _) => file.read_exact_at(data, offset),
            Store::Memory(memory, _) => {
                data.copy_from_slice(&memory[offset as usize..][..data.len()]);
                Ok(())
            }
        }
    }

    /// Puts `data` to the offset.
    pub(crate) fn write(&mut self, data: &[u8], offset: u64) -> std::io::Result<()> {
        match self {
            Store::Null => Ok(()),
            Store::File(file, _) => file.write_all_at(data, offset),
            Store::Memory(memory, _) => {
                memory[offset as usize..][..data.len()].copy_from_slice(data);
                Ok(())
            }
        }
    }
}

/// Answers requests in their order.
#[derive(Debug)]
pub(crate) struct Server {
    socket: TcpStream,
    shape: Shape,
    store: Store,
    requests: Ring,
    responses: Ring,
    answered: u64,
}

impl Server {
    pub(crate) fn new(socket: TcpStream, shape: Shape, store: Store) -> Server {
        let responses = match &store {
            Store::Null if !shape.writes && shape.data > 0 => {
                Ring::with_shared(shape.depth, shape.response_head, shape.data)
            }
            _ => Ring::new(shape.depth, shape.response()),
        };
        let requests = Ring::new(shape.depth, shape.request());
        Server { socket, shape, store, requests, responses, answered: 0 }
    }

    pub(crate) fn run(mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            match self.requests.receive(&self.socket) {
                // A blocking server hears of the end by the socket's.
                Err(_) if stop.load(Ordering::Relaxed) => break,
                received => received.map_err(failed("receiving requests"))?,
            };
            self.answer().map_err(failed("reading or writing the file"))?;
            self.responses.send(&self.socket, self.answered).map_err(failed("sending responses"))?;
        }
        Ok(())
    }

    fn answer(&mut self) -> std::io::Result<()> {
        let Shape { request_head, response_head, writes, .. } = self.shape;
        while self.answered < self.requests.messages() {
            let request = self.requests.place(self.answered);
            if !matches!(self.store, Store::Null) {
                let mut offset = [0; OFFSET_BYTES];
                offset.copy_from_slice(&request[..OFFSET_BYTES]);
                let offset = u64::from_le_bytes(offset);
                if writes {
                    self.store.write(&request[request_head..], offset)?;
                } else {
                    self.store.read(&mut self.responses.place(self.answered)[response_head..], offset)?;
                }
            }
            self.answered += 1;
        }
        Ok(())
    }
}
