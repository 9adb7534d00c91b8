//! What a context's loop stands on: the ring, timers, the wake-up from other threads, the spin budget, and tables with
//! generations. Nothing here knows messages.

mod near_timer;
mod ring;
mod slab;
mod spin;
mod timers;
mod wake;

pub(crate) use near_timer::NearTimer;
pub(crate) use ring::{Ring, STAMP_MASK, Ticket, TicketKind, WritePlace};
pub(crate) use slab::{Key, Slab};
pub(crate) use spin::SpinBudget;
pub(crate) use timers::Timers;
pub(crate) use wake::{Outbox, Waker, inbox};
