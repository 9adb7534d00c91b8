//! What one run gave, read from the JSON of the program that measured.

use crate::Result;
use serde_json::{Value, json};

/// Figures of one run; 0 where a program does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Measured {
    /// Operations, or messages, a second.
    pub(crate) rate: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) p999_ns: f64,
    /// Processor time per operation.
    pub(crate) client_cpu_ns: f64,
    pub(crate) server_cpu_ns: f64,
    /// Voluntary context switches per operation.
    pub(crate) client_switches: f64,
    pub(crate) server_switches: f64,
}

/// One of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Rate,
    Bandwidth,
    Median,
    P99,
    P999,
    /// Of both sides together.
    Cpu,
    ClientSwitches,
    ServerSwitches,
}

impl Measured {
    pub(crate) fn get(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Rate => self.rate,
            Figure::Bandwidth => self.bytes_per_second,
            Figure::Median => self.p50_ns,
            Figure::P99 => self.p99_ns,
            Figure::P999 => self.p999_ns,
            Figure::Cpu => self.client_cpu_ns + self.server_cpu_ns,
            Figure::ClientSwitches => self.client_switches,
            Figure::ServerSwitches => self.server_switches,
        }
    }

    /// The fields by name, as they are kept.
    pub(crate) fn to_json(self) -> Value {
        let Measured { rate, bytes_per_second, p50_ns, p99_ns, p999_ns, .. } = self;
        let Measured { client_cpu_ns, server_cpu_ns, client_switches, server_switches, .. } = self;
        json!({
            "rate": rate, "bytes_per_second": bytes_per_second, "p50_ns": p50_ns, "p99_ns": p99_ns,
            "p999_ns": p999_ns, "client_cpu_ns": client_cpu_ns, "server_cpu_ns": server_cpu_ns,
            "client_switches": client_switches, "server_switches": server_switches,
        })
    }

    /// Of `fio --output-format=json --group_reporting`: reads and writes together.
    pub(crate) fn from_fio(text: &str) -> Result<Measured> {
        // fio writes its notes before the JSON.
        let start = text.find('{').ok_or("fio wrote no JSON")?;
        let value: Value =
            serde_json::from_str(&text[start..]).map_err(|cause| format!("the JSON of fio: {cause}"))?;
        let job = &value["jobs"][0];
        if job["error"].as_i64() != Some(0) {
            return Err(format!("fio met error {}", job["error"]));
        }
        let (read, write) = (&job["read"], &job["write"]);
        let count = number(&read["total_ios"]) + number(&write["total_ios"]);
        let main = if number(&read["total_ios"]) >= number(&write["total_ios"]) { read } else { write };
        let percentile = |name: &str| number(&main["clat_ns"]["percentile"][name]);
        if count == 0.0 {
            return Err("fio did no I/O".to_owned());
        }
        // The percentages are of the jobs' time, and with group_reporting already their sum.
        let cpu_share = (number(&job["usr_cpu"]) + number(&job["sys_cpu"])) / 100.0;
        let job_seconds = number(&job["job_runtime"]) / 1e3;
        Ok(Measured {
            rate: number(&read["iops"]) + number(&write["iops"]),
            bytes_per_second: number(&read["bw_bytes"]) + number(&write["bw_bytes"]),
            p50_ns: percentile("50.000000"),
            p99_ns: percentile("99.000000"),
            p999_ns: percentile("99.900000"),
            client_cpu_ns: cpu_share * job_seconds * 1e9 / count,
            client_switches: number(&job["ctx"]) / count,
            ..Measured::default()
        })
    }

    /// Of `raio bench --json`.
    pub(crate) fn from_raio(text: &str) -> Result<Measured> {
        let value: Value =
            serde_json::from_str(text).map_err(|cause| format!("the JSON of raio: {cause}"))?;
        let (read, write) = (&value["read"], &value["write"]);
        let of = |side: &Value| number(&side["latency"]["count"]);
        let count = of(read) + of(write);
        if count == 0.0 {
            return Err("raio bench did no I/O".to_owned());
        }
        let main = if of(read) >= of(write) { &read["latency"] } else { &write["latency"] };
        Ok(Measured {
            rate: number(&read["iops"]) + number(&write["iops"]),
            bytes_per_second: number(&read["bytes_per_second"]) + number(&write["bytes_per_second"]),
            client_cpu_ns: number(&value["cpu_seconds"]) * 1e9 / count,
            ..Measured::percentiles(main)
        })
    }

    /// Of our own measurement programs, whose client and server may be one process.
    pub(crate) fn from_program(text: &str) -> Result<Measured> {
        let value: Value =
            serde_json::from_str(text).map_err(|cause| format!("the JSON of the program: {cause}"))?;
        let rate = number(&value["iops"]);
        if rate == 0.0 {
            return Err("the program measured nothing".to_owned());
        }
        Ok(Measured {
            rate,
            bytes_per_second: number(&value["bytes_per_second"]),
            client_cpu_ns: number(&value["cpu_ns_per_io"]),
            ..Measured::percentiles(&value["latency"])
        })
    }

    fn percentiles(latency: &Value) -> Measured {
        Measured {
            p50_ns: number(&latency["p50_ns"]),
            p99_ns: number(&latency["p99_ns"]),
            p999_ns: number(&latency["p99.9_ns"]),
            ..Measured::default()
        }
    }
}

/// A number, 0 where there is none.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fio_is_read() {
        let text = r#"note: both iodepth >= 1 and synchronous I/O engine are selected
            { "jobs": [ { "error": 0, "usr_cpu": 20.0, "sys_cpu": 60.0, "ctx": 500, "job_runtime": 1000,
              "read": { "total_ios": 1000, "iops": 1000.0, "bw_bytes": 4096000,
                        "clat_ns": { "percentile": { "50.000000": 900, "99.000000": 2000, "99.900000": 3000 } } },
              "write": { "total_ios": 0, "iops": 0.0, "bw_bytes": 0, "clat_ns": {} } } ] }"#;
        let measured = Measured::from_fio(text).unwrap();
        assert_eq!((measured.rate, measured.p50_ns, measured.p999_ns), (1000.0, 900.0, 3000.0));
        assert_eq!((measured.client_cpu_ns, measured.client_switches), (800_000.0, 0.5));
        assert!(Measured::from_fio("fio: no such engine").is_err());
        assert!(Measured::from_fio(r#"{ "jobs": [ { "error": 22 } ] }"#).is_err());
    }

    #[test]
    fn our_programs_are_read() {
        let text = r#"{ "cpu_seconds": 2.0,
            "read": { "iops": 10.0, "bytes_per_second": 40960.0, "latency": { "count": 100, "p50_ns": 5 } } }"#;
        let measured = Measured::from_raio(text).unwrap();
        assert_eq!((measured.rate, measured.p50_ns, measured.get(Figure::Cpu)), (10.0, 5.0, 2e7));
        let text = r#"{ "iops": 7.0, "cpu_ns_per_io": 3.0, "latency": { "p50_ns": 5, "p99.9_ns": 9 } }"#;
        assert_eq!(Measured::from_program(text).unwrap().p999_ns, 9.0);
        assert!(Measured::from_program("{}").is_err());
    }
}
