//! `raio bench compare`: two results side by side, as figures and ratios.

use super::failure::Failure;
use super::{Common, Done, say, size};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Arguments of `raio bench compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What `raio bench --json` or `cargo xtask bench` wrote
    before: PathBuf,
    /// The same, later or elsewhere
    after: PathBuf,
}

/// Figures of one measurement; 0 where it has none.
#[derive(Debug, Clone, PartialEq)]
struct Figures {
    name: String,
    iops: f64,
    bytes_per_second: f64,
    p50_ns: f64,
    p99_ns: f64,
}

/// A measurement that both have.
#[derive(Debug)]
struct Pair {
    before: Figures,
    after: Figures,
}

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Done {
    let before = read(&arguments.before)?;
    let after = read(&arguments.after)?;
    let alone = |ours: &[Figures], theirs: &[Figures]| {
        ours.iter().filter(|figures| theirs.iter().all(|other| other.name != figures.name)).count()
    };
    let (only_before, only_after) = (alone(&before, &after), alone(&after, &before));
    let pairs: Vec<Pair> = before
        .iter()
        .filter_map(|before| {
            let after = after.iter().find(|after| after.name == before.name)?;
            Some(Pair { before: before.clone(), after: after.clone() })
        })
        .collect();
    if pairs.is_empty() {
        let text = "the two results have no measurement in common".to_owned();
        let advice = "block size, depth, direction and jobs have to be the same".to_owned();
        return Err(Failure::usage(text, Some(advice)));
    }
    if common.json() {
        return say::json(&json!({
            "pairs": pairs.iter().map(Pair::describe).collect::<Vec<_>>(),
            "only_before": only_before, "only_after": only_after,
        }));
    }
    for pair in &pairs {
        pair.show()?;
    }
    if only_before + only_after > 0 {
        say::line(format!(
            "{only_before} measurement(s) only in the first, {only_after} only in the second"
        ))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Figures>, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|cause| Failure::local("compare", &name, &cause))?;
    parse(&text).ok_or_else(|| Failure::Other {
        what: "compare",
        place: name,
        why: "this is no result of a measurement".to_owned(),
        advice: Some("raio bench --json URI > FILE makes one".to_owned()),
    })
}

/// Of one run of `raio bench --json` (reads and writes are two measurements), or of `cargo xtask bench`.
fn parse(text: &str) -> Option<Vec<Figures>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let list: Vec<Figures> = if let Some(list) = value["measurements"].as_array() {
        list.iter().filter_map(|entry| figures(entry["name"].as_str()?.to_owned(), entry, entry)).collect()
    } else {
        let side = |side: &str| {
            let name = format!(
                "{} {side}, {} bytes, depth {}, {} job(s)",
                value["rw"].as_str()?,
                value["bs"],
                value["depth"],
                value["jobs"]
            );
            figures(name, &value[side], &value[side]["latency"])
        };
        ["read", "write"].into_iter().filter_map(side).collect()
    };
    (!list.is_empty()).then_some(list)
}

fn figures(name: String, rates: &Value, latency: &Value) -> Option<Figures> {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    Some(Figures {
        name,
        iops: rates["iops"].as_f64()?,
        bytes_per_second: number(&rates["bytes_per_second"]),
        p50_ns: number(&latency["p50_ns"]),
        p99_ns: number(&latency["p99_ns"]),
    })
}

fn ratio(before: f64, after: f64) -> Option<f64> {
    (before > 0.0).then(|| after / before)
}

impl Pair {
    fn describe(&self) -> Value {
        let Pair { before, after } = self;
        let pair = |before: f64, after: f64| json!({ "before": before, "after": after, "ratio": ratio(before, after) });
        json!({
            "name": before.name, "iops": pair(before.iops, after.iops),
            "bytes_per_second": pair(before.bytes_per_second, after.bytes_per_second),
            "p50_ns": pair(before.p50_ns, after.p50_ns), "p99_ns": pair(before.p99_ns, after.p99_ns),
        })
    }

    fn show(&self) -> Done {
        let Pair { before, after } = self;
        let times = |before: f64, after: f64| {
            let ratio = ratio(before, after).map_or(String::new(), |ratio| format!(" ({ratio:.2}x)"));
            let show = |time: f64| size::show_nanoseconds(time.max(0.0) as u64);
            format!("{} -> {}{ratio}", show(before), show(after))
        };
        let factor = ratio(before.iops, after.iops).map_or("?".to_owned(), |ratio| format!("{ratio:.2}x"));
        say::line(&before.name)?;
        say::line(format!("    {:.0} -> {:.0} IOPS ({factor})", before.iops, after.iops))?;
        say::line(format!(
            "    p50 {}, p99 {}",
            times(before.p50_ns, after.p50_ns),
            times(before.p99_ns, after.p99_ns)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_results_are_read() {
        let one = r#"{ "rw": "randrw", "bs": 4096, "depth": 32, "jobs": 1,
            "read": { "iops": 10.0, "latency": { "p50_ns": 5 } }, "write": { "iops": 20.0, "latency": {} } }"#;
        let list = parse(one).unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].name, "randrw read, 4096 bytes, depth 32, 1 job(s)");
        assert_eq!((list[0].p50_ns, list[1].iops), (5.0, 20.0));
        let many = r#"{ "measurements": [ { "name": "a", "iops": 1, "p50_ns": 2 }, { "name": "b" } ] }"#;
        assert_eq!(parse(many).unwrap().len(), 1);
        for nonsense in ["", "{}", "[1]", r#"{ "measurements": [] }"#] {
            assert!(parse(nonsense).is_none(), "{nonsense}");
        }
    }

    #[test]
    fn ratios_are_of_the_second_by_the_first() {
        let figures =
            |iops| Figures { name: "x".into(), iops, bytes_per_second: 0.0, p50_ns: 0.0, p99_ns: 0.0 };
        let value = Pair { before: figures(10.0), after: figures(25.0) }.describe();
        assert_eq!((&value["iops"]["ratio"], &value["p50_ns"]["ratio"]), (&json!(2.5), &Value::Null));
    }
}
