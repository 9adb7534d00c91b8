//! Who is measured at sending messages: libxio, UCX, and plain sockets.

use super::measured::Measured;
use super::place::{CLIENT_CORE, Place, SERVER_CORE, free_port, pinned};
use super::transport::Transport;
use crate::server::Server;
use crate::{Result, child};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// 64 bytes there and 64 back, one at a time.
    RoundTrip,
    /// Messages of 8 bytes, as many as go.
    Small,
    /// Messages of 1 MiB, as many as go.
    Large,
}

impl Exchange {
    pub(crate) const ALL: [Exchange; 3] = [Exchange::RoundTrip, Exchange::Small, Exchange::Large];

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Exchange::RoundTrip => "64 B there and back, one at a time",
            Exchange::Small => "8 B messages",
            Exchange::Large => "1 MiB messages",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Exchange::RoundTrip => 64,
            Exchange::Small => 8,
            Exchange::Large => 1 << 20,
        }
    }
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talker {
    Xio(&'static Transport),
    Ucx(&'static str),
    /// A plain socket, or a ring in shared memory, both sides polling: `minimal` without data.
    Raw(&'static Transport),
    /// Plain sockets, as sockperf and iperf3 use them.
    Sockets,
}

impl Talker {
    pub(crate) fn name(self) -> String {
        match self {
            Talker::Xio(transport) => format!("libxio {}", transport.name),
            Talker::Ucx(transport) => format!("UCX {transport}"),
            Talker::Raw(transport) => format!("minimal ({})", transport.name),
            Talker::Sockets => "sockperf, iperf3".to_owned(),
        }
    }

    pub(crate) fn can_do(self, exchange: Exchange) -> bool {
        match self {
            Talker::Raw(_) => exchange != Exchange::Large,
            Talker::Sockets => exchange != Exchange::Small,
            _ => true,
        }
    }

    /// Measures once.
    pub(crate) fn measure(self, exchange: Exchange, place: &Place) -> Result<Measured> {
        match self {
            Talker::Xio(transport) => xio(transport, exchange, place),
            Talker::Ucx(transport) => ucx(transport, exchange, place),
            Talker::Raw(transport) => {
                let text = place.client(&mut raw(transport, exchange, place))?;
                Measured::from_program(&text)
            }
            Talker::Sockets if exchange == Exchange::RoundTrip => sockperf(place),
            Talker::Sockets => iperf(place),
        }
    }

    /// The client's command, for the record.
    pub(crate) fn command(self, exchange: Exchange, place: &Place) -> String {
        let command = match self {
            Talker::Xio(_) => xio_client(exchange, place, "URI"),
            Talker::Ucx(transport) => {
                let command = ucx_client(transport, exchange, place, 13_337);
                return format!("UCX_TLS={} {}", ucx_tls(transport), child::line(&command));
            }
            Talker::Raw(transport) => raw(transport, exchange, place),
            Talker::Sockets if exchange == Exchange::RoundTrip => sockperf_client(place, 11_111),
            Talker::Sockets => iperf_client(place, 5201),
        };
        child::line(&command)
    }
}

fn xio(transport: &Transport, exchange: Exchange, place: &Place) -> Result<Measured> {
    let mut command = place.ours("xio", SERVER_CORE);
    command.args(["--polling-timeout-us", "10000000", "serve", &transport.listen(place)]);
    let server = Server::start_that_tells(&mut command)?;
    let text = place.client(&mut xio_client(exchange, place, &server.uri))?;
    server.end();
    let line = text.lines().next().ok_or("xio wrote nothing")?;
    let value: Value = serde_json::from_str(line).map_err(|cause| format!("the JSON of xio: {cause}"))?;
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    Ok(Measured {
        rate: number(&value["messages_per_second"]),
        bytes_per_second: number(&value["bytes_per_second"]),
        p50_ns: number(&value["latency_ns"]["p50"]),
        p99_ns: number(&value["latency_ns"]["p99"]),
        p999_ns: number(&value["latency_ns"]["p999"]),
        ..Measured::default()
    })
}

fn xio_client(exchange: Exchange, place: &Place, uri: &str) -> Command {
    let (pattern, depth) = match exchange {
        Exchange::RoundTrip => ("echo", "1"),
        Exchange::Small => ("one-way", "1"),
        Exchange::Large => ("fill", "4"),
    };
    let mut command = place.ours("xio", CLIENT_CORE);
    command.args(["--polling-timeout-us", "10000000", "--pattern", pattern, "--depth", depth]);
    command.args(["--size", &exchange.bytes().to_string(), "--time", &place.seconds.to_string()]);
    command.args(["client", uri]);
    command
}

/// The protocol layer of UCX (ucp) is restricted to a transport by this variable.
fn ucx_tls(transport: &str) -> String {
    if transport == "tcp" { "tcp".to_owned() } else { format!("{transport},self") }
}

fn ucx(transport: &str, exchange: Exchange, place: &Place) -> Result<Measured> {
    let port = free_port()?;
    let mut command = pinned(Path::new("ucx_perftest"), SERVER_CORE);
    command.args(["-p", &port.to_string()]).env("UCX_TLS", ucx_tls(transport));
    let server = Server::start_at(&mut command, port)?;
    let mut client = ucx_client(transport, exchange, place, port);
    let text = place.client(client.env("UCX_TLS", ucx_tls(transport)))?;
    server.end();
    parse_ucx(&text, exchange).ok_or_else(|| format!("ucx_perftest wrote no figures:\n{text}"))
}

fn ucx_client(transport: &str, exchange: Exchange, place: &Place, port: u16) -> Command {
    let tcp = transport == "tcp";
    // Messages a second, roughly, so that a run takes about as long as the others.
    let (test, rate) = match exchange {
        Exchange::RoundTrip => ("am_lat", if tcp { 80e3 } else { 2e6 }),
        Exchange::Small => ("am_bw", if tcp { 200e3 } else { 8e6 }),
        Exchange::Large => ("ucp_am_bw", 5e3),
    };
    let count = (rate * place.seconds) as u64;
    let mut command = pinned(Path::new("ucx_perftest"), CLIENT_CORE);
    command.args(["127.0.0.1", "-p", &port.to_string(), "-t", test, "-s", &exchange.bytes().to_string()]);
    command.args(["-n", &count.to_string(), "-w", &(count / 20 + 1).to_string(), "-f", "-v"]);
    // The layer below (uct) has messages of a few KiB only.
    if exchange != Exchange::Large {
        command.args(["-x", transport, "-d", if tcp { "lo" } else { "memory" }]);
    }
    command
}

/// The last line of its CSV: iterations, median, average and overall latency (us, one way), two bandwidths (MB/s of 2^20),
/// two message rates.
fn parse_ucx(text: &str, exchange: Exchange) -> Option<Measured> {
    let line = text.lines().rev().find(|line| line.starts_with(|first: char| first.is_ascii_digit()))?;
    let numbers: Vec<f64> = line.split(',').map_while(|word| word.trim().parse().ok()).collect();
    let [_, median_us, _, _, _, bandwidth, _, rate] = numbers[..] else { return None };
    let there_and_back = if exchange == Exchange::RoundTrip { 2.0 } else { 1.0 };
    Some(Measured {
        rate: rate / there_and_back,
        bytes_per_second: bandwidth * f64::from(1 << 20),
        p50_ns: if exchange == Exchange::RoundTrip { median_us * 2e3 } else { 0.0 },
        ..Measured::default()
    })
}

fn raw(transport: &Transport, exchange: Exchange, place: &Place) -> Command {
    let (request, response, depth) =
        if exchange == Exchange::RoundTrip { ("64", "64", "1") } else { ("8", "1", "256") };
    let mut command = place.minimal();
    command.args([
        "--over",
        transport.name,
        "--bs",
        "0",
        "--request-head",
        request,
        "--response-head",
        response,
        "--depth",
        depth,
    ]);
    command
}

fn sockperf(place: &Place) -> Result<Measured> {
    let port = free_port()?;
    let mut command = pinned(Path::new("sockperf"), SERVER_CORE);
    command.args(["server", "--tcp", "--nonblocked", "-i", "127.0.0.1", "-p", &port.to_string()]);
    let server = Server::start_at(&mut command, port)?;
    let text = place.client(&mut sockperf_client(place, port))?;
    server.end();
    parse_sockperf(&text).ok_or_else(|| format!("sockperf wrote no figures:\n{text}"))
}

fn sockperf_client(place: &Place, port: u16) -> Command {
    let mut command = pinned(Path::new("sockperf"), CLIENT_CORE);
    command.args([
        "ping-pong",
        "--tcp",
        "--nonblocked",
        "-i",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-m",
        "64",
    ]);
    command.args(["-t", &(place.seconds.ceil() as u64).to_string(), "--full-rtt"]);
    command
}

/// Of its lines `---> percentile 50.000 =   10.480`, in microseconds.
fn parse_sockperf(text: &str) -> Option<Measured> {
    let percentile = |name: &str| {
        let line = text.lines().find(|line| line.contains(&format!("percentile {name}")))?;
        line.rsplit('=').next()?.trim().parse::<f64>().ok()
    };
    let p50_ns = percentile("50.000")? * 1e3;
    let (p99_ns, p999_ns) = (percentile("99.000")? * 1e3, percentile("99.900")? * 1e3);
    Some(Measured { rate: 1e9 / p50_ns, p50_ns, p99_ns, p999_ns, ..Measured::default() })
}

fn iperf(place: &Place) -> Result<Measured> {
    let port = free_port()?;
    let mut command = pinned(Path::new("iperf3"), SERVER_CORE);
    command.args(["--server", "--one-off", "--port", &port.to_string()]);
    let server = Server::start_at(&mut command, port)?;
    let text = place.client(&mut iperf_client(place, port))?;
    server.end();
    let value: Value = serde_json::from_str(&text).map_err(|cause| format!("the JSON of iperf3: {cause}"))?;
    let bits = value["end"]["sum_received"]["bits_per_second"].as_f64().ok_or("iperf3 received nothing")?;
    let bytes_per_second = bits / 8.0;
    Ok(Measured { rate: bytes_per_second / f64::from(1 << 20), bytes_per_second, ..Measured::default() })
}

fn iperf_client(place: &Place, port: u16) -> Command {
    let mut command = pinned(Path::new("iperf3"), CLIENT_CORE);
    command.args(["--client", "127.0.0.1", "--port", &port.to_string(), "--length", "1M", "--json"]);
    command.args(["--time", &(place.seconds.ceil() as u64).to_string()]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read() {
        let text = "iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr\n\
                    20000,4.710,5.524,5.524,11.05,11.05,181013,181013\n";
        let measured = parse_ucx(text, Exchange::RoundTrip).unwrap();
        assert_eq!((measured.p50_ns, measured.rate), (9420.0, 90_506.5));
        assert_eq!(parse_ucx(text, Exchange::Small).unwrap().rate, 181_013.0);
        assert!(parse_ucx("error\n", Exchange::Small).is_none());
        let text = "sockperf: ---> percentile 99.900 =  608.025\nsockperf: ---> percentile 99.000 =   22.938\n\
                    sockperf: ---> percentile 50.000 =   10.480\n";
        assert_eq!(parse_sockperf(text).unwrap().p50_ns, 10_480.0);
    }
}
