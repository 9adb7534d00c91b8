//! An export as it is written down: `data=/srv/data`, `ro=/srv/data:ro`, `/srv/data`, `scratch=memory:8M`,
//! `null=null:1G`.

use crate::{Error, Result};
use std::path::{Component, Path, PathBuf};

/// Size of a null export without one in bytes: what `/dev/null` of R-AIO has.
pub const NULL_BYTES: u64 = 1 << 32;

/// Most bytes of a memory export: 64 GiB.
const MEMORY_BYTES_MAX: u64 = 1 << 36;

/// One export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportConfig {
    /// The path that clients name: `/data`, or the absolute path itself.
    pub path: PathBuf,
    /// What it stands for.
    pub target: ExportTarget,
    /// Writes are refused.
    pub read_only: bool,
}

/// What an export stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportTarget {
    /// A directory and everything beneath it, a file, or a block device.
    Path(PathBuf),
    /// Zeros to read, and nothing kept of what is written.
    Null {
        /// Size in bytes.
        size: u64,
    },
    /// Memory of the server, gone with it.
    Memory {
        /// Size in bytes.
        size: u64,
    },
}

impl ExportConfig {
    /// An export under a name: clients reach it as `/NAME`.
    ///
    /// # Errors
    /// [`Error::ExportText`] for a name that is empty, `.` or `..`, or has a slash in it.
    pub fn named(name: &str, target: ExportTarget, read_only: bool) -> Result<ExportConfig> {
        let bad = |reason| Err(Error::ExportText { text: name.to_owned(), reason });
        match name {
            "" => bad("the name is empty"),
            "." | ".." => bad("this is no name"),
            _ if name.contains(['/', '\0']) => bad("a name has no slash and no NUL in it"),
            _ => Ok(ExportConfig { path: Path::new("/").join(name), target, read_only }),
        }
    }

    /// An export under its own absolute path.
    ///
    /// # Errors
    /// [`Error::ExportText`] for a path that is not absolute, is `/`, or has `..` in it.
    pub fn own_path(path: &Path, read_only: bool) -> Result<ExportConfig> {
        let bad = |reason| Err(Error::ExportText { text: path.display().to_string(), reason });
        if !path.is_absolute() {
            return bad("without a name the path has to be absolute (or write NAME=PATH)");
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return bad("write the path without ..");
        }
        // `components` leaves out `.` and doubled slashes.
        let clean: PathBuf = path.components().collect();
        if clean == Path::new("/") {
            return bad("the whole file system can only be exported under a name (NAME=/)");
        }
        Ok(ExportConfig { path: clean.clone(), target: ExportTarget::Path(clean), read_only })
    }

    /// Reads one of the forms `NAME=PATH[:ro]`, `/PATH[:ro]`, `NAME=null[:SIZE][:ro]`, `NAME=memory:SIZE[:ro]`.
    ///
    /// # Errors
    /// [`Error::ExportText`].
    pub fn parse(text: &str) -> Result<ExportConfig> {
        let bad = |reason| Error::ExportText { text: text.to_owned(), reason };
        let named = text.split_once('=').filter(|(name, _)| !name.contains('/'));
        let what = named.map_or(text, |(_, what)| what);
        let (what, read_only) = match what.strip_suffix(":ro") {
            Some(rest) => (rest, true),
            None => (what, false),
        };
        let Some((name, _)) = named else {
            return ExportConfig::own_path(Path::new(what), read_only);
        };
        let target = match what.split_once(':') {
            _ if what == "null" => ExportTarget::Null { size: NULL_BYTES },
            Some(("null", size)) => ExportTarget::Null {
                size: parse_size(size)
                    .filter(|size| i64::try_from(*size).is_ok())
                    .ok_or_else(|| bad("null:SIZE needs a size like 4096, 16M or 1G"))?,
            },
            Some(("memory", size)) => ExportTarget::Memory {
                size: parse_size(size)
                    .filter(|size| (1..=MEMORY_BYTES_MAX).contains(size))
                    .ok_or_else(|| bad("memory:SIZE needs a size like 16M, of at most 64G"))?,
            },
            _ if what == "memory" => return Err(bad("memory needs a size: memory:16M")),
            _ if what.is_empty() => return Err(bad("the path is missing")),
            _ => ExportTarget::Path(PathBuf::from(what)),
        };
        ExportConfig::named(name, target, read_only)
            .map_err(|_| bad("a name is not empty, not . or .., and has no slash in it"))
    }
}

/// A number of bytes: `512`, `4k`, `16M`, `1G`, `1T` (powers of 1,024).
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(path: &str, target: ExportTarget, read_only: bool) -> ExportConfig {
        ExportConfig { path: path.into(), target, read_only }
    }

    #[test]
    fn every_form() {
        let path = |path: &str| ExportTarget::Path(path.into());
        for (text, expected) in [
            ("data=/srv/data", export("/data", path("/srv/data"), false)),
            ("ro=/srv/a=b:ro", export("/ro", path("/srv/a=b"), true)),
            ("here=some/where", export("/here", path("some/where"), false)),
            ("/srv//data/./x/", export("/srv/data/x", path("/srv/data/x"), false)),
            ("/srv/a=b:ro", export("/srv/a=b", path("/srv/a=b"), true)),
            ("all=/", export("/all", path("/"), false)),
            ("n=null", export("/n", ExportTarget::Null { size: 1 << 32 }, false)),
            ("n=null:1G:ro", export("/n", ExportTarget::Null { size: 1 << 30 }, true)),
            ("m=memory:8M", export("/m", ExportTarget::Memory { size: 8 << 20 }, false)),
            ("n=./null", export("/n", path("./null"), false)),
        ] {
            assert_eq!(ExportConfig::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for text in [
            "",
            "data",
            "=x",
            "data=",
            "..=/x",
            "/",
            "/srv/../x",
            "m=memory",
            "m=memory:0",
            "m=memory:2T",
            "n=null:x",
            "n=null:-1",
            "n=null:99999999999999999999",
            "data=:ro",
        ] {
            let error = ExportConfig::parse(text).unwrap_err();
            assert!(matches!(error, Error::ExportText { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4k"), Some(4096));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        for text in ["", "k", "1x", "-1", "99999999999T"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
