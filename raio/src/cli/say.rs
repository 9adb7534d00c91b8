//! Standard output, where a reader that has gone away is no reason to panic.

use super::failure::Failure;
use std::io::{self, Write};

/// Writes bytes.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::output)
}

/// Writes a line.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    bytes(format!("{}\n", text.as_ref()).as_bytes())
}

/// Writes a JSON value, indented.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    line(format!("{value:#}"))
}

/// A name for a terminal: what could move the cursor is shown as an escape.
pub(crate) fn name(bytes: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_write_to_the_terminal() {
        assert_eq!(name(b"a\x1b[2Jb\n\xff"), "a\\u{1b}[2Jb\\n\u{fffd}");
    }
}
