//! What is sent, retried, acknowledged: pure state machines without I/O, clock or thread. Numbers and times come in as
//! arguments, verdicts go out as values.
//!
//! Per connection and direction there is a [`Requester`] on one side and a [`Responder`] on the other, which share
//! slots, and a [`OneWaySender`] and a [`OneWayReceiver`]; they outlive links. Per link there are a [`SendGrant`] and a
//! [`ReceiveGrant`] for each direction, which begin anew with each hello, a [`Keepalive`], and an [`Arrival`] while data
//! lands.
#![forbid(unsafe_code)]

mod arrival;
mod grant;
mod keepalive;
#[cfg(test)]
mod model;
mod one_way;
mod requester;
mod responder;
mod slot_set;

pub use arrival::Arrival;
pub use grant::{ReceiveGrant, SendGrant};
pub use keepalive::{Keepalive, KeepaliveAction};
pub use one_way::{OneWayReceiver, OneWaySender};
pub use requester::{Answer, Requester};
pub use responder::{Admission, Responder, Standing};

/// The sequence number after this one: they count from 1 and leave 0 out when they wrap.
#[inline]
fn next_sequence(sequence: u32) -> u32 {
    sequence.checked_add(1).unwrap_or(1)
}
