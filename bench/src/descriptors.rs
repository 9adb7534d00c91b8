//! How many descriptors a process may have.

use crate::{Result, failed};

/// Raises the limit on open descriptors as far as it has to be.
///
/// # Errors
/// The user may not have so many.
pub fn allow_descriptors(wanted: u64) -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    limit.current = Some(wanted);
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        limit.maximum = Some(wanted);
    }
    setrlimit(Resource::Nofile, limit).map_err(failed(format!("allowing {wanted} descriptors (ulimit -n)")))
}
