//! Where something is: on this machine, or on a server.

use super::failure::Failure;
use libxio::Uri;
use std::path::PathBuf;

/// A local path or a uri.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Local(PathBuf),
    Remote(Uri),
}

impl Place {
    /// What has `://` in it is a uri.
    pub(crate) fn parse(text: &str) -> Result<Place, Failure> {
        if text.contains("://") { Ok(Place::Remote(remote(text)?)) } else { Ok(Place::Local(text.into())) }
    }

    /// The last component of its path.
    pub(crate) fn file_name(&self) -> Option<String> {
        match self {
            Place::Local(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            Place::Remote(uri) => {
                let name = uri.resource().trim_end_matches('/').rsplit('/').next()?;
                (!name.is_empty()).then(|| name.to_owned())
            }
        }
    }

    /// The same with a component more.
    pub(crate) fn join(&self, name: &str) -> Place {
        match self {
            Place::Local(path) => Place::Local(path.join(name)),
            Place::Remote(uri) => {
                let directory = uri.resource().trim_end_matches('/');
                Place::Remote(uri.with_resource(&format!("{directory}/{name}")))
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Local(path) => path.display().fmt(f),
            Place::Remote(uri) => uri.fmt(f),
        }
    }
}

/// A uri of a server.
pub(crate) fn remote(text: &str) -> Result<Uri, Failure> {
    if !text.contains("://") {
        let advice = "a uri is needed, like raio://127.0.0.1:5555/data/file".to_owned();
        return Err(Failure::usage(format!("{text}: this is not a uri"), Some(advice)));
    }
    text.parse::<Uri>().map_err(|cause| Failure::usage(cause.to_string(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_joined() {
        let place = Place::parse("raio://h:1/data/").unwrap();
        assert_eq!(place.file_name().as_deref(), Some("data"));
        assert_eq!(place.join("x y").to_string(), "raio://h:1/data/x%20y");
        assert_eq!(Place::parse("raio://h:1/").unwrap().file_name(), None);
        assert_eq!(Place::parse("a/b").unwrap().join("c").to_string(), "a/b/c");
        assert!(Place::parse("raio://h:x/").is_err());
    }
}
