//! The connections of one job: one for each server that its files name.

use crate::error::Error;
use crate::fio::File;
use crate::opening::OpenFile;
use crate::options::Settings;
use crate::place::{Place, Server};
use raio::proto::{Attributes, OpenFlags};
use raio::{Engine, Operation, Outcome, StatTarget};
use std::sync::Arc;

/// Permissions of a file that is made, less the server's umask, as fio has them for its own.
const MODE: u32 = 0o644;

/// One connection.
pub struct Link {
    server: Server,
    pub engine: Engine,
    /// Something was handed to the engine since it was flushed.
    pub unflushed: bool,
    /// The user was told that the connection is lost.
    pub loss_told: bool,
}

/// All connections.
pub struct Links {
    settings: Settings,
    links: Vec<Link>,
}

impl Links {
    pub fn new(settings: Settings) -> Links {
        Links { settings, links: Vec::new() }
    }

    /// Where a file is.
    ///
    /// # Errors
    /// [`Error::Name`]; [`Error::Option`] where the job's transport is not the one that the name is made for.
    pub fn place(&self, file: File) -> Result<Place, Error> {
        let place = Place::parse(&file.name(), self.settings.socket.as_deref())?;
        match place.server {
            Server::Socket(_) if !self.settings.shares_memory() => {
                let reason = "a server's socket is for shared memory: transport=shm, or auto";
                Err(Error::Option { name: "transport", reason })
            }
            _ => Ok(place),
        }
    }

    /// The number of the connection to a server, which is made if there is none.
    ///
    /// # Errors
    /// As [`Engine::connect`].
    pub fn reach(&mut self, server: &Server) -> Result<usize, Error> {
        if let Some(index) = self.links.iter().position(|link| link.server == *server) {
            return Ok(index);
        }
        let engine = Engine::connect(&server.uri(self.settings.scheme), &self.settings.client)?;
        self.links.push(Link { server: server.clone(), engine, unflushed: false, loss_told: false });
        Ok(self.links.len() - 1)
    }

    /// The connections, in the order of their numbers.
    pub fn all(&mut self) -> &mut [Link] {
        &mut self.links
    }

    /// Attributes of a file.
    ///
    /// # Errors
    /// Those of connecting, and the server's.
    pub fn stat(&mut self, place: &Place) -> Result<Attributes, Error> {
        match self.call(place, Operation::Stat(StatTarget::Path(place.path.clone())))? {
            Outcome::Attributes(attributes) => Ok(*attributes),
            _ => Err(unexpected(place, raio::proto::Op::Stat)),
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// Those of connecting, and the server's.
    pub fn open(&mut self, place: &Place, flags: OpenFlags) -> Result<OpenFile, Error> {
        let link = self.reach(&place.server)?;
        let open = Operation::Open { path: place.path.clone(), flags, mode: MODE };
        match self.call(place, open)? {
            Outcome::Opened { handle, attributes } => {
                let io_bytes_max = attributes.io_bytes_max.min(self.links[link].engine.limits().io_bytes_max);
                Ok(OpenFile { link, handle, attributes: *attributes, io_bytes_max: io_bytes_max.max(1) })
            }
            _ => Err(unexpected(place, raio::proto::Op::Open)),
        }
    }

    /// Does one thing at the server of a file, and waits for it.
    ///
    /// # Errors
    /// Those of connecting, and the server's.
    pub fn call(&mut self, place: &Place, operation: Operation) -> Result<Outcome, Error> {
        let link = self.reach(&place.server)?;
        let named = |error: raio::Error| error.with_path(&Arc::from(place.display()));
        self.links[link].engine.call(operation).map_err(named).map_err(Error::Remote)
    }

    /// Says goodbye to all servers.
    pub fn close(self) {
        for link in self.links {
            link.engine.close();
        }
    }
}

/// The engine gave an outcome that belongs to another operation.
fn unexpected(place: &Place, op: raio::proto::Op) -> Error {
    let path = Some(Arc::from(place.display()));
    Error::Remote(raio::Error::Operation { op, path, errno: libc::EPROTO })
}
