//! How much memory this process may use: the machine's, or what its memory groups (cgroups) leave it.

use std::path::Path;

/// Bytes of memory that this process and those of its groups may use.
pub(crate) fn usable_memory() -> u64 {
    let machine = rustix::system::sysinfo();
    // What isn't 64 bits wide elsewhere.
    #[allow(clippy::useless_conversion, reason = "a c_ulong is shorter on some machines")]
    let machine = u64::from(machine.totalram).saturating_mul(machine.mem_unit.into());
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine.min(group_limit(&groups, Path::new("/sys/fs/cgroup")))
}

/// The lowest limit of the memory groups in such a list of /proc, as found under `root`: of version 2 in one tree, of version
/// 1 in the tree of the memory controller. A container may see its own group as the root, whatever the list says.
fn group_limit(groups: &str, root: &Path) -> u64 {
    let mut lowest = u64::MAX;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (tree, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            // There is none where nothing is limited: "max", or no file.
            let limit = std::fs::read_to_string(tree.join(group).join(file));
            if let Some(limit) = limit.ok().and_then(|limit| limit.trim().parse().ok()) {
                lowest = lowest.min(limit);
            }
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |group: &str, file: &str, limit: &str| {
            let folder = root.path().join(group);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(file), limit).unwrap();
        };
        write("", "memory.max", "max\n");
        write("one", "memory.max", "1000\n");
        write("one/two", "memory.max", "max\n");
        write("memory/a", "memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/a/b", "memory.limit_in_bytes", "500\n");
        let limit = |groups: &str| group_limit(groups, root.path());
        assert_eq!(limit("0::/one/two\n"), 1000);
        assert_eq!(limit("0::/\n"), u64::MAX);
        assert_eq!(limit("0::/not/to/be/seen/here\n"), u64::MAX);
        assert_eq!(limit("9:name=systemd:/\n4:memory:/a/b\n0::/one\n"), 500);
        assert_eq!(limit("4:cpu,memory:/a\n"), 9_223_372_036_854_771_712);
        assert_eq!(limit("nonsense\n::\n\n"), u64::MAX);
        assert!(usable_memory() > 1 << 20);
    }
}
