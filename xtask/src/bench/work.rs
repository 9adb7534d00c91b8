//! What is measured: one kind of I/O on one kind of store.

/// What is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// A device that gives zeros and keeps nothing.
    Null,
    /// So many MiB of the server's own memory, all of it written before.
    Memory(u32),
    /// A file on disk, all of it in the page cache.
    File,
}

/// How long our programs poll before they sleep; peers do as they always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polling {
    /// Both sides all the time.
    Always,
    /// As they come.
    Default,
    /// Never.
    Never,
}

/// The direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
    /// Half and half.
    Mix,
}

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) direction: Direction,
    pub(crate) block_bytes: u32,
    /// Requests in flight, for each job.
    pub(crate) depth: u32,
    pub(crate) store: Store,
    pub(crate) polling: Polling,
    /// Connections, each with a thread or process of its own.
    pub(crate) jobs: u32,
    /// Past the page cache of the server.
    pub(crate) direct: bool,
}

impl Work {
    /// Reads at random places, one job, buffered, polling all the time.
    pub(crate) const fn read(block_bytes: u32, depth: u32, store: Store) -> Work {
        Work {
            direction: Direction::Read,
            block_bytes,
            depth,
            store,
            polling: Polling::Always,
            jobs: 1,
            direct: false,
        }
    }

    pub(crate) const fn direction(self, direction: Direction) -> Work {
        Work { direction, ..self }
    }

    pub(crate) const fn polling(self, polling: Polling) -> Work {
        Work { polling, ..self }
    }

    pub(crate) const fn jobs(self, jobs: u32) -> Work {
        Work { jobs, ..self }
    }

    pub(crate) const fn direct(self) -> Work {
        Work { direct: true, ..self }
    }

    /// The name that fio and `raio bench` have for the direction.
    pub(crate) fn rw(&self) -> &'static str {
        match self.direction {
            Direction::Read => "randread",
            Direction::Write => "randwrite",
            Direction::Mix => "randrw",
        }
    }

    /// For people: `4 KiB read, depth 32, null, polling always`.
    pub(crate) fn describe(&self) -> String {
        let direction = match self.direction {
            Direction::Read => "read",
            Direction::Write => "write",
            Direction::Mix => "read and write",
        };
        let store = match self.store {
            Store::Null => "null".to_owned(),
            Store::Memory(mib) => format!("{mib} MiB of memory"),
            Store::File if self.direct => "file past the cache".to_owned(),
            Store::File => "cached file".to_owned(),
        };
        let polling = match self.polling {
            Polling::Always => ", always polling",
            Polling::Default => "",
            Polling::Never => ", never polling",
        };
        let jobs = if self.jobs == 1 { String::new() } else { format!(", {} jobs", self.jobs) };
        let block = show_bytes(self.block_bytes);
        format!("{block} {direction}, depth {}{jobs}, {store}{polling}", self.depth)
    }
}

/// `512 B`, `4 KiB`, `1 MiB`.
pub(crate) fn show_bytes(bytes: u32) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_reads_well() {
        let work = Work::read(4096, 32, Store::Null);
        assert_eq!(work.describe(), "4 KiB read, depth 32, null, always polling");
        let work = Work::read(1 << 20, 4, Store::File).direction(Direction::Mix).polling(Polling::Default);
        assert_eq!(
            work.jobs(8).direct().describe(),
            "1 MiB read and write, depth 4, 8 jobs, file past the cache"
        );
        let work = Work::read(4096, 1, Store::Memory(16));
        assert_eq!(work.describe(), "4 KiB read, depth 1, 16 MiB of memory, always polling");
        assert_eq!(show_bytes(512), "512 B");
    }
}
