//! Answers: 32 bytes of status, and attributes where a file was opened or looked up.

use super::{ATTRIBUTES_BYTES, Attributes, Handle, Invalid, Op};
use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the status that every answer starts with.
pub const STATUS_BYTES: usize = 32;

/// Longest header of an answer: status and attributes.
pub const ANSWER_BYTES_MAX: usize = STATUS_BYTES + ATTRIBUTES_BYTES;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Status {
    errno: I32,
    flags: U32,
    value: U64,
    reserved: [u8; 16],
}

const _: () = assert!(size_of::<Status>() == STATUS_BYTES);

/// The list or the info goes on: ask again with the cookie.
const MORE: u32 = 1;

/// Greatest errno that Linux has.
const ERRNO_MAX: i32 = 4095;

/// The header of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It failed with this errno (Linux numbering, 1 to 4095).
    Failed(i32),
    /// Bytes read or written; 0 for commands that move none.
    Moved(u32),
    /// A file was opened.
    Opened(Handle, Attributes),
    /// A file was looked up.
    Found(Attributes),
    /// Entries of a directory, or the server's info, are the message's data.
    Listed {
        /// Ask again with this.
        cookie: u64,
        /// There is more.
        more: bool,
    },
}

/// The bytes of an answer's header.
#[derive(Debug, Clone, Copy)]
pub struct AnswerBytes {
    bytes: [u8; ANSWER_BYTES_MAX],
    length: usize,
}

impl std::ops::Deref for AnswerBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Answer {
    /// Nothing to say but that it is done.
    pub const DONE: Answer = Answer::Moved(0);

    /// As [`Answer::Moved`], encoded: nearly all answers are such.
    #[must_use]
    #[inline]
    pub fn encode_moved(bytes: u32) -> [u8; STATUS_BYTES] {
        let status = Status {
            errno: I32::new(0),
            flags: U32::new(0),
            value: U64::new(bytes.into()),
            reserved: [0; 16],
        };
        zerocopy::transmute!(status)
    }

    /// The bytes of [`Answer::Moved`] to a read or write that went well, if it is that and keeps all rules; else
    /// [`Answer::decode`] says what it is, or which rule it breaks.
    #[inline]
    pub(crate) fn decode_moved(op: Op, header: &[u8], data_length: usize) -> Option<u32> {
        let status = Status::ref_from_bytes(header).ok()?;
        let Status { errno, flags, value, reserved } = status;
        let bytes = u32::try_from(value.get()).ok()?;
        let expected = match op {
            Op::Read => bytes as usize,
            Op::Write => 0,
            _ => return None,
        };
        let is_clean = errno.get() == 0 && flags.get() == 0 && *reserved == [0; 16];
        (is_clean && data_length == expected).then_some(bytes)
    }

    /// The bytes on the wire, without allocation. An errno out of range becomes EIO.
    #[must_use]
    pub fn encode(&self) -> AnswerBytes {
        let (errno, more, value, attributes) = match self {
            Answer::Failed(errno) if (1..=ERRNO_MAX).contains(errno) => (*errno, false, 0, None),
            Answer::Failed(_) => (libc::EIO, false, 0, None),
            Answer::Moved(bytes) => (0, false, u64::from(*bytes), None),
            Answer::Opened(Handle(handle), attributes) => (0, false, *handle, Some(attributes)),
            Answer::Found(attributes) => (0, false, 0, Some(attributes)),
            Answer::Listed { cookie, more } => (0, *more, *cookie, None),
        };
        let status = Status {
            errno: I32::new(errno),
            flags: U32::new(if more { MORE } else { 0 }),
            value: U64::new(value),
            reserved: [0; 16],
        };
        let mut answer = AnswerBytes { bytes: [0; ANSWER_BYTES_MAX], length: STATUS_BYTES };
        answer.bytes[..STATUS_BYTES].copy_from_slice(status.as_bytes());
        if let Some(attributes) = attributes {
            answer.bytes[STATUS_BYTES..].copy_from_slice(&attributes.encode());
            answer.length = ANSWER_BYTES_MAX;
        }
        answer
    }

    /// Decodes and checks the header of the answer to `op`, which came with `data_length` bytes of data.
    ///
    /// # Errors
    /// The rule that it breaks: the server can't be trusted to have done what was asked.
    pub fn decode(op: Op, header: &[u8], data_length: usize) -> Result<Answer, Invalid> {
        let (status, rest) = Status::ref_from_prefix(header).map_err(|_| Invalid::Length {
            what: "answer",
            found: header.len() as u64,
            expected: STATUS_BYTES as u64,
        })?;
        let Status { errno, flags, value, reserved } = status;
        let (errno, flags, value) = (errno.get(), flags.get(), value.get());
        let listing = matches!(op, Op::List | Op::Info);
        let known = if listing && errno == 0 { MORE } else { 0 };
        if flags & !known != 0 {
            return Err(Invalid::Flags { what: "answer", bits: flags & !known });
        }
        if *reserved != [0; 16] {
            return Err(Invalid::NotZero("answer"));
        }
        let answer = match op {
            _ if errno != 0 => {
                if !(1..=ERRNO_MAX).contains(&errno) {
                    return Err(Invalid::Errno(errno));
                }
                if value != 0 {
                    return Err(Invalid::NotZero("failed answer"));
                }
                Answer::Failed(errno)
            }
            Op::Open if value == 0 => return Err(Invalid::NoHandle),
            Op::Open => Answer::Opened(Handle(value), Attributes::decode(rest)?),
            Op::Stat if value != 0 => return Err(Invalid::NotZero("answer")),
            Op::Stat => Answer::Found(Attributes::decode(rest)?),
            Op::List | Op::Info => Answer::Listed { cookie: value, more: flags & MORE != 0 },
            Op::Read | Op::Write => {
                Answer::Moved(u32::try_from(value).map_err(|_| Invalid::LengthLimit(value))?)
            }
            _ if value != 0 => return Err(Invalid::NotZero("answer")),
            _ => Answer::DONE,
        };
        let takes_rest = matches!(answer, Answer::Opened(..) | Answer::Found(_));
        if !takes_rest && !rest.is_empty() {
            return Err(Invalid::Length {
                what: "answer",
                found: header.len() as u64,
                expected: STATUS_BYTES as u64,
            });
        }
        let data_fits = match answer {
            Answer::Moved(bytes) if op == Op::Read => data_length == bytes as usize,
            Answer::Listed { .. } => true,
            _ => data_length == 0,
        };
        if !data_fits {
            let expected = if op == Op::Read && errno == 0 { value } else { 0 };
            return Err(Invalid::Length { what: "data of the answer", found: data_length as u64, expected });
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::attributes::sample;
    use super::*;

    #[test]
    fn every_answer_goes_there_and_back() {
        for (op, answer, data_length) in [
            (Op::Read, Answer::Failed(libc::EIO), 0),
            (Op::Read, Answer::Moved(4096), 4096),
            (Op::Write, Answer::Moved(4096), 0),
            (Op::Open, Answer::Opened(Handle(7), sample()), 0),
            (Op::Stat, Answer::Found(sample()), 0),
            (Op::List, Answer::Listed { cookie: u64::MAX, more: true }, 100),
            (Op::Info, Answer::Listed { cookie: 0, more: false }, 100),
            (Op::Close, Answer::DONE, 0),
        ] {
            let bytes = answer.encode();
            assert!(bytes.len() <= super::super::REPLAY_BYTES_MAX);
            assert_eq!(Answer::decode(op, &bytes, data_length), Ok(answer));
            for length in 0..bytes.len() {
                assert!(Answer::decode(op, &bytes[..length], data_length).is_err());
            }
            let longer = [&bytes[..], b"x"].concat();
            assert!(Answer::decode(op, &longer, data_length).is_err());
        }
    }

    #[test]
    fn the_short_way_of_reads_and_writes_is_the_long_one() {
        for bytes in [0, 1, 4096, u32::MAX] {
            let header = Answer::encode_moved(bytes);
            assert_eq!(header[..], Answer::Moved(bytes).encode()[..]);
            for op in [Op::Read, Op::Write, Op::Flush] {
                for length in [0, 1, bytes as usize] {
                    let long = match Answer::decode(op, &header, length) {
                        Ok(Answer::Moved(bytes)) if op != Op::Flush => Some(bytes),
                        _ => None,
                    };
                    assert_eq!(Answer::decode_moved(op, &header, length), long, "{op:?} {bytes} {length}");
                }
            }
            for at in 0..STATUS_BYTES {
                let mut wrong = header;
                wrong[at] ^= 0x80;
                let long = matches!(Answer::decode(Op::Write, &wrong, 0), Ok(Answer::Moved(_)));
                assert_eq!(Answer::decode_moved(Op::Write, &wrong, 0).is_some(), long, "{at}");
            }
        }
        assert_eq!(Answer::decode_moved(Op::Write, &[0; STATUS_BYTES - 1], 0), None);
        assert_eq!(Answer::decode_moved(Op::Write, &[0; STATUS_BYTES + 1], 0), None);
    }

    #[test]
    fn golden_bytes() {
        let golden = [&[0, 0, 0, 0, 1, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
        assert_eq!(Answer::Listed { cookie: 0x0708, more: true }.encode()[..], golden[..]);
        assert_eq!(Answer::Failed(libc::ENOENT).encode()[..4], [2, 0, 0, 0]);
        assert_eq!(Answer::Failed(-3).encode()[..4], Answer::Failed(libc::EIO).encode()[..4]);
    }

    #[test]
    fn a_lying_answer_is_refused() {
        let moved = Answer::Moved(100).encode();
        assert!(matches!(Answer::decode(Op::Read, &moved, 99), Err(Invalid::Length { .. })));
        assert!(matches!(Answer::decode(Op::Write, &moved, 100), Err(Invalid::Length { .. })));
        assert_eq!(Answer::decode(Op::Close, &moved, 0), Err(Invalid::NotZero("answer")));
        let opened = Answer::Opened(Handle(0), sample()).encode();
        assert_eq!(Answer::decode(Op::Open, &opened, 0), Err(Invalid::NoHandle));
        let mut failed = [0; STATUS_BYTES];
        failed[..4].copy_from_slice(&(-5_i32).to_le_bytes());
        assert_eq!(Answer::decode(Op::Flush, &failed, 0), Err(Invalid::Errno(-5)));
    }
}
