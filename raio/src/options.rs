//! How a client connects, with the defaults.

use std::time::Duration;

/// Which transport a `raio:` uri stands for. Other uris name theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Transport {
    /// Shared memory with a server on the same host that offers it, else TCP.
    #[default]
    Auto,
    /// TCP.
    Tcp,
    /// Shared memory, or not at all. The server is found by its host and port, and says where its socket is.
    Shm,
}

/// Options of a connection to a server.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Longest time that a wait polls before it sleeps; zero never polls. Default: 100 us.
    pub polling_timeout: Duration,
    /// Silence after which the server is given up, counted while a call waits for it. Default: 10 s.
    pub keepalive: Duration,
    /// Time for the connection to be set up. Default: 10 s.
    pub connect_timeout: Duration,
    /// Checksums (CRC-32C) over all that travels, if the server has them too. Default: off.
    pub crc: bool,
    /// Most memory in bytes for data that lands in buffers of the library. Default: 1 GiB; it is taken as needed.
    pub pool_bytes_max: usize,
    /// Most memory in bytes that is registered with RDMA devices beside receive buffers, of all clients of the process; data
    /// of other memory is copied. Default, `None`: half of what the process may lock (RLIMIT_MEMLOCK), all where that has no
    /// limit.
    pub rdma_bytes_max: Option<u64>,
    /// Requests that the server is asked to take at a time; more are queued here. Default: 1,024.
    pub requests_max: u16,
    /// What a `raio:` uri stands for. Default: the best that both sides have.
    pub transport: Transport,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            polling_timeout: Duration::from_micros(100),
            keepalive: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            crc: false,
            pool_bytes_max: 1 << 30,
            rdma_bytes_max: None,
            requests_max: 1024,
            transport: Transport::Auto,
        }
    }
}

impl ClientOptions {
    /// The defaults, changed by `RAIO_KEEPALIVE_MS`, `RAIO_CONNECT_TIMEOUT_MS`, `RAIO_POLLING_US`, `RAIO_CRC` (0 or 1) and
    /// `RAIO_RDMA_MEMORY_MIB` where they are set: for programs whose interface has no place for options. A value that is not a
    /// number is left out, with a warning in the log.
    #[must_use]
    pub fn from_env() -> ClientOptions {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> ClientOptions {
        let number = |name: &str| {
            let text = get(name)?;
            let number = text.trim().parse::<u32>();
            if number.is_err() {
                tracing::warn!(name, value = text, "not a number from 0 to 4294967295: left out");
            }
            number.ok().map(u64::from)
        };
        let defaults = ClientOptions::default();
        ClientOptions {
            polling_timeout: number("RAIO_POLLING_US")
                .map_or(defaults.polling_timeout, Duration::from_micros),
            keepalive: number("RAIO_KEEPALIVE_MS").map_or(defaults.keepalive, Duration::from_millis),
            connect_timeout: number("RAIO_CONNECT_TIMEOUT_MS")
                .map_or(defaults.connect_timeout, Duration::from_millis),
            crc: number("RAIO_CRC").map_or(defaults.crc, |number| number != 0),
            rdma_bytes_max: number("RAIO_RDMA_MEMORY_MIB").map(|mib| mib << 20),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_change_the_defaults_and_nonsense_does_not() {
        let options = ClientOptions::from_variables(|name| match name {
            "RAIO_KEEPALIVE_MS" => Some("1500".into()),
            "RAIO_POLLING_US" => Some("0".into()),
            "RAIO_CONNECT_TIMEOUT_MS" => Some("soon".into()),
            "RAIO_RDMA_MEMORY_MIB" => Some("64".into()),
            _ => None,
        });
        assert_eq!(options.keepalive, Duration::from_millis(1500));
        assert_eq!(options.polling_timeout, Duration::ZERO);
        assert_eq!(options.rdma_bytes_max, Some(64 << 20));
        assert_eq!(options.connect_timeout, ClientOptions::default().connect_timeout);
    }
}
