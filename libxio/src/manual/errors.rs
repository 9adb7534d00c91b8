//! Errors: one type, [`Error`](crate::Error), whose variants say who is at fault.
//!
//! | at fault | variants | what to do |
//! |---|---|---|
//! | the caller | `BadUri`, `LimitExceeded`, `Unsupported`, `StaleHandle`, `UnknownTransport`, `OutOfBounds`, `NotPermitted` | mend the program or its configuration |
//! | nobody: not now | `SlotsExhausted`, `OneWayExhausted`, `InboxFull` | wait for a response, for `Event::SendReady`, a moment |
//! | this machine | `PoolExhausted`, `RingRefused`, `MemoryNotTaken`, `System` | release buffers or raise a limit; the text says which |
//! | the network or the peer | `ConnectFailed`, `ConnectionLost`, `TimedOut`, `Closed` | connect again; look at the peer |
//! | the server's decision | `Rejected` | the reason says; `Busy` and `ShuttingDown` pass |
//! | the peer's program | `Protocol`, `Unanswered`, `NoRoom`, `NotExposed` | report it; both sides have logged it |
//! | whoever asked for it | `ClosedLocally`, `Cancelled`, `DeadlineExceeded` | nothing |
//!
//! [`Error::errno`](crate::Error::errno) gives the number for callers that speak errno. Errors of a call come from the call;
//! what becomes of a connection or a message later comes in its event. An event's error is the same for all messages that
//! ended by the same cause.
//!
//! A call on something that has ended is [`Error::StaleHandle`](crate::Error::StaleHandle), never a panic: between an end and
//! your hearing of it, calls may fail so; the event follows.
//!
//! What the library has to say about connections that come, go and fail is logged by `tracing`; programs without a
//! subscriber set a [hook](crate::log::set_hook).
