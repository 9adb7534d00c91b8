//! Notices a silent server for callers that never wait inside a call: the messaging layer counts silence only while it
//! waits, which a caller who polls with a timeout of zero (an outer loop, an executor, a busy poller) never does.
//!
//! Time between two polls counts up to [`GAP_MAX`], so that a caller who thinks for minutes, or sits in a debugger, does
//! no harm. After a third of the limit the server is probed with a command that costs it nothing.

use std::time::{Duration, Instant};

/// Most that one pause between two polls counts. An outer loop is woken at least twice as often.
const GAP_MAX: Duration = Duration::from_secs(1);

/// What to do about the silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Wait,
    /// Ask for a sign of life.
    Probe,
    /// Give the server up: it was silent for this long.
    Dead(Duration),
}

/// Silence of the server while something is asked of it.
#[derive(Debug)]
pub(super) struct Watch {
    /// Silence after which the server is given up; zero never does.
    limit: Duration,
    /// Silence counted so far.
    silent: Duration,
    /// The last poll that brought nothing, if no other came since.
    polled: Option<Instant>,
    /// Frames received at that time.
    frames: u64,
    /// A probe was asked for in this silence.
    probed: bool,
}

impl Watch {
    pub(super) fn new(limit: Duration) -> Watch {
        Watch { limit, silent: Duration::ZERO, polled: None, frames: 0, probed: false }
    }

    /// Something came, or nothing is asked of the server.
    pub(super) fn reset(&mut self) {
        self.silent = Duration::ZERO;
        self.polled = None;
        self.probed = false;
    }

    /// A poll brought nothing; `frames` is how many frames were received in all.
    pub(super) fn silent(&mut self, now: Instant, frames: u64) -> Verdict {
        if self.limit.is_zero() {
            return Verdict::Wait;
        }
        let Some(polled) = self.polled.filter(|_| frames == self.frames) else {
            self.reset();
            self.polled = Some(now);
            self.frames = frames;
            return Verdict::Wait;
        };
        self.silent += now.saturating_duration_since(polled).min(GAP_MAX);
        self.polled = Some(now);
        if self.silent >= self.limit {
            return Verdict::Dead(self.silent);
        }
        if !self.probed && self.silent >= self.limit / 3 {
            self.probed = true;
            return Verdict::Probe;
        }
        Verdict::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_is_probed_once_and_then_judged() {
        let mut watch = Watch::new(3 * SECOND);
        let start = Instant::now();
        let verdicts: Vec<_> =
            (0..7).map(|half_seconds| watch.silent(start + half_seconds * SECOND / 2, 5)).collect();
        let mut expected = vec![Verdict::Wait; 7];
        expected[2] = Verdict::Probe;
        expected[6] = Verdict::Dead(3 * SECOND);
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn a_frame_or_an_event_is_a_sign_of_life() {
        let mut watch = Watch::new(SECOND);
        let start = Instant::now();
        watch.silent(start, 5);
        assert_eq!(watch.silent(start + SECOND * 9 / 10, 5), Verdict::Probe);
        assert_eq!(watch.silent(start + SECOND, 6), Verdict::Wait);
        assert_eq!(watch.silent(start + SECOND * 19 / 10, 6), Verdict::Probe);
        watch.reset();
        assert_eq!(watch.silent(start + SECOND * 3, 6), Verdict::Wait);
    }

    #[test]
    fn a_caller_who_thinks_for_minutes_is_not_the_servers_fault() {
        let mut watch = Watch::new(10 * SECOND);
        let start = Instant::now();
        watch.silent(start, 0);
        assert_eq!(watch.silent(start + 600 * SECOND, 0), Verdict::Wait);
        let mut off = Watch::new(Duration::ZERO);
        off.silent(start, 0);
        assert_eq!(off.silent(start + 600 * SECOND, 0), Verdict::Wait);
    }
}
