//! Handles to what a context owns: a number and a generation, so that a stale one is told from a live one. They are
//! plain values: copying one gives no ownership, and using one on another context is an error.

use crate::reactor::Key;

/// Number of a context in this process, part of every handle.
pub(crate) type ContextNumber = u32;

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            pub(crate) context: ContextNumber,
            pub(crate) index: u32,
            pub(crate) generation: u32,
        }

        impl $name {
            pub(crate) fn new(context: ContextNumber, key: Key) -> Self {
                $name { context, index: key.index, generation: key.generation }
            }

            #[allow(dead_code, reason = "file operations are not looked up by their handle yet")]
            /// The key in the tables of the context with this number; none for a handle of another context.
            #[inline]
            pub(crate) fn key(self, context: ContextNumber) -> Option<Key> {
                (self.context == context).then_some(Key { index: self.index, generation: self.generation })
            }
        }
    };
}

handle! {
    /// A connection of a context.
    Connection
}
impl Connection {
    /// A small number, for tables: no two open connections of a context have the same one at a time, and numbers are used
    /// again.
    #[must_use]
    #[inline]
    pub fn number(self) -> usize {
        self.index as usize
    }
}

handle! {
    /// A server (a listening address) of a context.
    Server
}
handle! {
    /// A timer that has not fired.
    TimerId
}
handle! {
    /// A foreign file descriptor that a context watches.
    FdId
}
handle! {
    /// A file operation in flight.
    OpId
}

/// A request in flight on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    pub(crate) slot: u16,
    pub(crate) sequence: u32,
}
