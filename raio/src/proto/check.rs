//! The rules that a command keeps, on both sides.

use super::request::{Command, FLAG};
use super::{Handle, Invalid, Op, OpenFlags, PATH_BYTES_MAX, Request, Target};

impl Request<'_> {
    /// The rules that hold on both sides.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        match *self {
            Request::Open { path, flags, mode } => {
                OpenFlags::from_bits(flags.bits())?;
                if mode & !0o7777 != 0 {
                    return Err(Invalid::Flags { what: "mode", bits: mode & !0o7777 });
                }
                check_path(path)
            }
            Request::Close { handle } | Request::Flush { handle, .. } => check_handle(handle),
            Request::Read { handle, offset, length } | Request::Write { handle, offset, length, .. } => {
                check_handle(handle)?;
                check_range(offset, u64::from(length))
            }
            Request::Discard { handle, offset, length } => {
                check_handle(handle)?;
                if length == 0 {
                    return Err(Invalid::Range { offset, length });
                }
                check_range(offset, length)
            }
            Request::Truncate { handle, size } => {
                check_handle(handle)?;
                check_range(0, size)
            }
            Request::Stat(Target::Handle(handle)) => check_handle(handle),
            Request::Stat(Target::Path(path)) | Request::List { path, .. } | Request::Unlink { path, .. } => {
                check_path(path)
            }
            Request::Rename { from, to, .. } => {
                check_path(from)?;
                check_path(to)
            }
            Request::Info => Ok(()),
        }
    }

    /// Fields that this command does not use are zero, so that a later version can give them a meaning.
    #[inline]
    pub(super) fn check_unused(&self, command: &Command, data_length: usize) -> Result<(), Invalid> {
        let Command {
            op: _,
            flags,
            path_length,
            second_path_length,
            handle,
            offset,
            length,
            open_flags,
            mode,
            reserved,
        } = command;
        let op = self.op();
        let known = match op {
            Op::Write | Op::Flush | Op::Unlink | Op::Rename => FLAG,
            _ => 0,
        };
        if flags.get() & !known != 0 {
            return Err(Invalid::Flags { what: op.name(), bits: u32::from(flags.get() & !known) });
        }
        let takes_path = matches!(op, Op::Open | Op::Stat | Op::List | Op::Unlink | Op::Rename);
        let takes_handle = match self {
            Request::Stat(target) => matches!(target, Target::Handle(_)),
            _ => !takes_path && op != Op::Info,
        };
        let clean = (op == Op::Rename || second_path_length.get() == 0)
            && (takes_path || path_length.get() == 0)
            && (takes_handle || handle.get() == 0)
            && (matches!(op, Op::Read | Op::Write | Op::Discard | Op::List) || offset.get() == 0)
            && (matches!(op, Op::Read | Op::Write | Op::Discard | Op::Truncate) || length.get() == 0)
            && (op == Op::Open || (open_flags.get() == 0 && mode.get() == 0))
            && *reserved == [0; 8];
        if !clean {
            return Err(Invalid::NotZero(op.name()));
        }
        let expected = if op == Op::Write { length.get() } else { 0 };
        if data_length as u64 != expected {
            return Err(Invalid::Length { what: "data of the command", found: data_length as u64, expected });
        }
        Ok(())
    }
}

fn check_path(path: &[u8]) -> Result<(), Invalid> {
    match path.len() {
        0 => Err(Invalid::PathEmpty),
        length if length > PATH_BYTES_MAX => Err(Invalid::PathTooLong(length)),
        _ if path.contains(&0) => Err(Invalid::PathNul),
        _ => Ok(()),
    }
}

#[inline]
fn check_handle(handle: Handle) -> Result<(), Invalid> {
    if handle.0 == 0 { Err(Invalid::NoHandle) } else { Ok(()) }
}

#[inline]
fn check_range(offset: u64, length: u64) -> Result<(), Invalid> {
    match offset.checked_add(length) {
        Some(end) if i64::try_from(end).is_ok() => Ok(()),
        _ => Err(Invalid::Range { offset, length }),
    }
}
