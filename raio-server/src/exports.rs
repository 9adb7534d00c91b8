//! The table of exports: which one a path names, and what is left of the path for it.

use crate::backend::{Backend, DirectoryBackend, FileBackend, MemoryBackend, NullBackend};
use crate::export_config::NULL_BYTES;
use crate::offloop::Group;
use crate::{Error, ExportConfig, ExportTarget, Result};
use raio::proto::{ExportInfo, FileKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// The path that every server has, as programs of R-AIO expect.
const NULL_PATH: &str = "/dev/null";

/// One export, opened.
#[derive(Clone)]
pub(crate) struct Export {
    config: ExportConfig,
    /// Components of the path that clients name.
    components: Vec<Vec<u8>>,
    pub backend: Arc<dyn Backend>,
    /// Of its calls off the loop.
    pub calls: Group,
    /// Not listed: it is the server's own.
    hidden: bool,
}

/// All exports.
#[derive(Clone)]
pub(crate) struct Exports {
    list: Vec<Export>,
}

/// What a path names.
pub(crate) enum Found<'a> {
    /// Something of an export: the name for its backend.
    Name(&'a Export, Vec<u8>),
    /// The place above all exports.
    Top,
    /// Nothing.
    Nothing,
}

impl Export {
    fn open(config: &ExportConfig) -> Result<Export> {
        let backend: Arc<dyn Backend> = match &config.target {
            ExportTarget::Null { size } => Arc::new(NullBackend::new(*size)),
            ExportTarget::Memory { size } => Arc::new(MemoryBackend::new(*size)),
            ExportTarget::Path(path) => open_path(config, path)?,
        };
        let components = components(config.path.as_os_str().as_bytes()).map(<[u8]>::to_vec).collect();
        Ok(Export { config: config.clone(), components, backend, calls: Group::new(), hidden: false })
    }

    /// Whether writes are refused.
    pub(crate) fn read_only(&self) -> bool {
        self.config.read_only
    }

    fn info(&self) -> ExportInfo {
        ExportInfo {
            path: self.config.path.as_os_str().as_bytes().to_vec(),
            kind: self.backend.kind(),
            read_only: self.config.read_only,
            size: self.backend.size(),
        }
    }
}

fn open_path(config: &ExportConfig, path: &Path) -> Result<Arc<dyn Backend>> {
    let failed = |cause: std::io::Error| Error::ExportPath {
        export: config.path.display().to_string(),
        path: path.to_owned(),
        cause,
    };
    let from_errno = |errno| match errno {
        libc::EINVAL => std::io::Error::other("only directories, files and block devices can be exported"),
        errno => std::io::Error::from_raw_os_error(errno),
    };
    // The server may change its working directory; the export stays.
    let absolute = std::path::absolute(path).map_err(failed)?;
    let metadata = std::fs::metadata(&absolute).map_err(failed)?;
    if metadata.is_dir() {
        let backend = DirectoryBackend::open(&absolute).map_err(|errno| failed(from_errno(errno)))?;
        return Ok(Arc::new(backend));
    }
    // Opening a pipe or a character device may do something: they are refused unopened.
    use std::os::unix::fs::MetadataExt;
    match FileKind::from_mode(metadata.mode()) {
        FileKind::File | FileKind::BlockDevice => {}
        FileKind::CharacterDevice if absolute == Path::new(NULL_PATH) => {
            return Ok(Arc::new(NullBackend::new(NULL_BYTES)));
        }
        _ => return Err(failed(from_errno(libc::EINVAL))),
    }
    Ok(Arc::new(FileBackend::open(&absolute).map_err(|errno| failed(from_errno(errno)))?))
}

/// The components of a path, without empty ones and `.`.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

impl Exports {
    /// Opens all of them, and adds `/dev/null`.
    ///
    /// # Errors
    /// [`Error::ExportPath`]; [`Error::ExportsOverlap`].
    pub(crate) fn open(configs: &[ExportConfig]) -> Result<Exports> {
        let mut list = configs.iter().map(Export::open).collect::<Result<Vec<_>>>()?;
        for (index, one) in list.iter().enumerate() {
            for other in &list[index + 1..] {
                let (short, long) =
                    if one.components.len() <= other.components.len() { (one, other) } else { (other, one) };
                if long.components.starts_with(&short.components) {
                    return Err(Error::ExportsOverlap {
                        one: short.config.path.display().to_string(),
                        other: long.config.path.display().to_string(),
                    });
                }
            }
        }
        let null = ExportConfig {
            path: NULL_PATH.into(),
            target: ExportTarget::Null { size: NULL_BYTES },
            read_only: false,
        };
        // It comes first, so that it is /dev/null below an exported /dev too.
        list.insert(0, Export { hidden: true, ..Export::open(&null)? });
        Ok(Exports { list })
    }

    /// What a client's path names.
    pub(crate) fn find(&self, path: &[u8]) -> Found<'_> {
        if path.first() != Some(&b'/') {
            return Found::Nothing;
        }
        if components(path).next().is_none() {
            return Found::Top;
        }
        for export in &self.list {
            let mut parts = components(path);
            if !export.components.iter().all(|own| parts.next() == Some(own)) {
                continue;
            }
            let mut name = parts.collect::<Vec<_>>().join(&b'/');
            if name.is_empty() {
                name.push(b'.');
            } else if path.ends_with(b"/") {
                // It has to be a directory.
                name.push(b'/');
            }
            return Found::Name(export, name);
        }
        Found::Nothing
    }

    /// What the server tells of its exports.
    pub(crate) fn info(&self) -> Vec<ExportInfo> {
        self.list.iter().filter(|export| !export.hidden).map(Export::info).collect()
    }

    /// Exports that were configured, in words, for the log.
    pub(crate) fn describe(&self) -> Vec<String> {
        let shown = self.list.iter().filter(|export| !export.hidden);
        let describe = |export: &Export| {
            let mode = if export.config.read_only { "read-only" } else { "read-write" };
            let path = export.config.path.display();
            match &export.config.target {
                ExportTarget::Path(target) => {
                    format!("{path} = {} {}, {mode}", export.backend.kind().name(), target.display())
                }
                _ => format!(
                    "{path} = {} of {} bytes, {mode}",
                    export.backend.kind().name(),
                    export.backend.size()
                ),
            }
        };
        shown.map(describe).collect()
    }

    /// Lets exports that did not change keep what they hold: memory; and calls that still run count.
    pub(crate) fn keep_from(&mut self, before: &Exports) {
        for export in &mut self.list {
            if let Some(old) = before.list.iter().find(|old| old.config.path == export.config.path) {
                export.calls = old.calls;
            }
            let same = before.list.iter().find(|old| old.config == export.config);
            if let Some(old) = same.filter(|_| matches!(export.config.target, ExportTarget::Memory { .. })) {
                export.backend = Arc::clone(&old.backend);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports(texts: &[&str]) -> Result<Exports> {
        Exports::open(&texts.iter().map(|text| ExportConfig::parse(text).unwrap()).collect::<Vec<_>>())
    }

    fn find(exports: &Exports, path: &str) -> Option<(String, String)> {
        match exports.find(path.as_bytes()) {
            Found::Name(export, name) => {
                Some((export.config.path.display().to_string(), String::from_utf8(name).unwrap()))
            }
            Found::Top | Found::Nothing => None,
        }
    }

    #[test]
    fn paths_find_their_export_and_a_name() {
        let exports = exports(&["n=null", "/tmp", "etc=/etc:ro"]).unwrap();
        for (path, export, name) in [
            ("/n", "/n", "."),
            ("//n/./x", "/n", "x"),
            ("/tmp/a//b/../c", "/tmp", "a/b/../c"),
            ("/etc/", "/etc", "."),
            ("/etc/ssl/", "/etc", "ssl/"),
            ("/dev/null", "/dev/null", "."),
        ] {
            assert_eq!(find(&exports, path), Some((export.to_owned(), name.to_owned())), "{path}");
        }
        for path in ["", "n", "/", "/nn", "/x/../n", "/tmpx", "/../tmp"] {
            assert_eq!(find(&exports, path), None, "{path}");
        }
        assert!(matches!(exports.find(b"/."), Found::Top));
        assert_eq!(exports.info().len(), 3, "the null device of the server's own is not listed");
    }

    #[test]
    fn overlaps_are_refused() {
        for texts in [&["a=null", "a=null"][..], &["/tmp", "tmp=/etc"], &["/usr/bin", "/usr"]] {
            assert!(matches!(exports(texts), Err(Error::ExportsOverlap { .. })), "{texts:?}");
        }
        exports(&["/usr/bin", "/usr/lib"]).unwrap();
    }

    #[test]
    fn what_can_not_be_served_is_refused_at_the_start() {
        for text in ["x=/no/such/thing", "x=/dev/tty", "x=/dev/zero"] {
            assert!(matches!(exports(&[text]), Err(Error::ExportPath { .. })), "{text}");
        }
        assert_eq!(exports(&["/dev/null"]).err().map(|error| error.to_string()), None);
    }
}
