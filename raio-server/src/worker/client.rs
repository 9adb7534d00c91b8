//! What a worker knows of one connection: its open files, and what it has in flight.

use crate::backend::OpenFile;
use crate::offloop::Group;
use libxio::{Connection, Request};
use raio::proto::Handle;
use std::sync::Arc;

/// One connection.
pub(super) struct Client {
    pub connection: Connection,
    /// Its address, for people.
    pub peer: String,
    /// Version of the file protocol that was agreed upon.
    pub protocol: u16,
    files: Vec<Place>,
    /// Indices of `files` that are free.
    vacant: Vec<u32>,
    /// Files open, and being opened.
    pub open: usize,
    /// Requests received and not answered.
    pub running: usize,
    /// Calls off the loop.
    pub off_loop: usize,
    /// Bytes of reads that were begun and have not ended.
    pub reading: u64,
    /// Requests that came when the server was stopping; they are not executed.
    pub held: Vec<Request>,
    /// Bytes of answers since it was last looked at what it holds.
    pub answered: u64,
}

/// A place for an open file.
struct Place {
    /// Tells a stale handle from a live one.
    generation: u32,
    file: Option<Opened>,
}

/// An open file.
#[derive(Clone)]
pub(super) struct Opened {
    pub file: Arc<dyn OpenFile>,
    /// The export is read-only.
    pub read_only: bool,
    /// Of the export's calls off the loop.
    pub calls: Group,
}

impl Client {
    pub(super) fn new(connection: Connection, peer: String, protocol: u16) -> Client {
        Client {
            connection,
            peer,
            protocol,
            files: Vec::new(),
            vacant: Vec::new(),
            open: 0,
            running: 0,
            off_loop: 0,
            reading: 0,
            held: Vec::new(),
            answered: 0,
        }
    }

    /// Gives a file a handle: index and one in the lower half (so that it is never 0), generation in the upper.
    pub(super) fn insert(&mut self, opened: Opened) -> Handle {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.files.push(Place { generation: 0, file: None });
            // The number of files is limited far below u32.
            self.files.len() as u32 - 1
        });
        let place = &mut self.files[index as usize];
        place.generation = place.generation.wrapping_add(1);
        place.file = Some(opened);
        Handle(u64::from(place.generation) << 32 | u64::from(index + 1))
    }

    #[inline]
    pub(super) fn get(&self, handle: Handle) -> Option<&Opened> {
        let (place, generation) = self.place(handle)?;
        let place = self.files.get(place)?;
        place.file.as_ref().filter(|_| place.generation == generation)
    }

    /// Takes a file out; its handle is stale from now on.
    pub(super) fn remove(&mut self, handle: Handle) -> Option<Opened> {
        let (index, generation) = self.place(handle)?;
        let place = self.files.get_mut(index)?;
        if place.generation != generation {
            return None;
        }
        let opened = place.file.take()?;
        self.vacant.push(index as u32);
        self.open -= 1;
        Some(opened)
    }

    /// All files, when the connection has ended.
    pub(super) fn into_files(self) -> Vec<Opened> {
        self.files.into_iter().filter_map(|place| place.file).collect()
    }

    /// Index and generation of a handle.
    #[inline]
    fn place(&self, Handle(number): Handle) -> Option<(usize, u32)> {
        // The casts take the halves apart.
        let index = (number as u32).checked_sub(1)?;
        Some((index as usize, (number >> 32) as u32))
    }
}
