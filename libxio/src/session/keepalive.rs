//! Notices a silent peer.
//!
//! Silence is the time since something was heard. After each third of the limit a probe is sent, and a peer is given up
//! after the limit, if a probe has then gone unanswered for a third of it: a loop that was itself held up for long asks
//! before it judges.
//!
//! A side whose loop runs only inside its caller's calls says when it leaves and enters it. An absence shorter than a
//! third of the limit is none: what arrived in the meantime waits in the link and is heard first. A longer absence does
//! not count as silence; afterwards a probe is sent at once, and the peer gets a third of the limit to answer it. So
//! neither a night in a debugger nor a short look every few seconds leads to a wrong verdict, and a caller who only ever
//! looks in briefly still learns of a dead peer: when probes went unanswered over [`ABSENCES_MAX`] absences in a row.

use std::time::{Duration, Instant};

/// Long absences in a row over each of which a probe went unanswered, after which the peer is given up.
const ABSENCES_MAX: u32 = 3;
/// When nothing is to be done: about a year from now.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepaliveAction {
    /// Nothing before this time.
    Wait(Instant),
    /// Send a ping.
    Ping,
    /// The peer was silent for this long: give it up.
    Dead(Duration),
}

/// Times one peer. A side whose loop runs only inside calls pauses it between them.
#[derive(Debug, Clone)]
pub struct Keepalive {
    /// Silence after which the peer is given up; `None` never gives it up.
    limit: Option<Duration>,
    /// Between two probes: a third of the limit, rounded up, so that the limit is over before the third is due.
    interval: Duration,
    /// When something was heard last.
    heard: Instant,
    /// Long absences since then, which don't count as silence.
    absent: Duration,
    /// First and last probe since something was heard and since the last long absence.
    probes: Option<Probes>,
    /// A long absence is over, and nothing was heard since.
    probe_at_once: bool,
    /// Long absences in a row that a probe was unanswered before and after.
    absences: u32,
    /// When the caller left the loop.
    paused: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Probes {
    first: Instant,
    last: Instant,
}

impl Keepalive {
    /// `limit` is the silence after which the peer is given up; it is probed after a third of it. Zero switches it off.
    #[must_use]
    pub fn new(limit: Duration, now: Instant) -> Keepalive {
        let limit = Some(limit.min(FAR)).filter(|limit| !limit.is_zero());
        Keepalive {
            limit,
            interval: Keepalive::absence_min(limit.unwrap_or(FAR)) + Duration::from_nanos(1),
            heard: now,
            absent: Duration::ZERO,
            probes: None,
            probe_at_once: false,
            absences: 0,
            paused: None,
        }
    }

    /// Absences from the loop that are shorter are none, for a keepalive with this limit: nobody need tell of them.
    #[must_use]
    pub fn absence_min(limit: Duration) -> Duration {
        limit.min(FAR) / 3
    }

    /// Something arrived from the peer.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.absent = Duration::ZERO;
        self.probes = None;
        self.probe_at_once = false;
        self.absences = 0;
    }

    /// The caller left the loop: silence does not count until [`Keepalive::resume`].
    pub fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    /// The caller is back.
    pub fn resume(&mut self, now: Instant) {
        let Some(left) = self.paused.take() else {
            return;
        };
        let away = now.saturating_duration_since(left.max(self.heard));
        if away < self.interval {
            return;
        }
        self.absent += away;
        self.absences += u32::from(self.probes.is_some());
        self.probes = None;
        self.probe_at_once = true;
    }

    /// What to do; call it after everything that had arrived was heard. A ping that it asks for counts as sent.
    pub fn poll(&mut self, now: Instant) -> KeepaliveAction {
        let Some(limit) = self.limit.filter(|_| self.paused.is_none()) else {
            return KeepaliveAction::Wait(now + FAR);
        };
        let since_heard = now.saturating_duration_since(self.heard);
        if self.absences >= ABSENCES_MAX {
            return KeepaliveAction::Dead(since_heard);
        }
        let counted_from = self.heard + self.absent;
        let ping_due = match self.probes {
            Some(probes) => {
                let dead_due = (counted_from + limit).max(probes.first + self.interval);
                if now >= dead_due {
                    return KeepaliveAction::Dead(since_heard.saturating_sub(self.absent));
                }
                let ping_due = probes.last + self.interval;
                if now < ping_due {
                    return KeepaliveAction::Wait(ping_due.min(dead_due));
                }
                ping_due
            }
            None if self.probe_at_once => now,
            None => counted_from + self.interval,
        };
        if now < ping_due {
            return KeepaliveAction::Wait(ping_due);
        }
        self.probe_at_once = false;
        self.probes = Some(Probes { first: self.probes.map_or(now, |probes| probes.first), last: now });
        KeepaliveAction::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limit of the peers in these tests; a third of it is 3 s.
    const LIMIT: Duration = Duration::from_secs(9);
    /// Allows for the rounding of a third.
    const MOMENT: Duration = Duration::from_millis(1);

    /// A keepalive and the time.
    struct Scene {
        keepalive: Keepalive,
        now: Instant,
    }

    impl Scene {
        fn new() -> Scene {
            let now = Instant::now();
            Scene { keepalive: Keepalive::new(LIMIT, now), now }
        }

        fn pass(&mut self, milliseconds: u64) -> &mut Scene {
            self.now += Duration::from_millis(milliseconds);
            self
        }

        fn poll(&mut self) -> KeepaliveAction {
            self.keepalive.poll(self.now)
        }

        fn heard(&mut self) {
            self.keepalive.heard(self.now);
        }

        fn is_waiting(&mut self) -> bool {
            matches!(self.poll(), KeepaliveAction::Wait(until) if until > self.now)
        }

        /// Stays in the loop, polling when it says so, until it asks for something.
        fn wait(&mut self, milliseconds: u64) -> KeepaliveAction {
            let end = self.now + Duration::from_millis(milliseconds);
            loop {
                match self.poll() {
                    KeepaliveAction::Wait(until) if until <= end => self.now = until,
                    KeepaliveAction::Wait(_) => {
                        self.now = end;
                        return self.poll();
                    }
                    action => return action,
                }
            }
        }

        /// Leaves the loop and comes back.
        fn be_away(&mut self, milliseconds: u64) {
            self.keepalive.pause(self.now);
            self.pass(milliseconds);
            self.keepalive.resume(self.now);
        }
    }

    fn is_dead_after(action: KeepaliveAction, milliseconds: u64) -> bool {
        let expected = Duration::from_millis(milliseconds);
        matches!(action, KeepaliveAction::Dead(silent) if silent >= expected && silent <= expected + MOMENT)
    }

    #[test]
    fn an_absence_that_nobody_tells_of_is_none() {
        let shortest = Keepalive::absence_min(LIMIT);
        let (mut told, mut untold) = (Scene::new(), Scene::new());
        let tell = |scene: &mut Scene, away: Duration| {
            scene.keepalive.pause(scene.now);
            scene.now += away;
            scene.keepalive.resume(scene.now);
        };
        tell(&mut told, shortest - Duration::from_nanos(1));
        untold.now += shortest - Duration::from_nanos(1);
        assert_eq!(told.wait(100_000), KeepaliveAction::Ping);
        assert_eq!(untold.wait(100_000), KeepaliveAction::Ping);
        assert!(told.now - untold.now < MOMENT || untold.now - told.now < MOMENT);
        // One that is a little longer is.
        tell(&mut told, shortest + MOMENT);
        assert_eq!(told.keepalive.absences, 1);
        assert_eq!(Keepalive::absence_min(Duration::MAX), FAR / 3);
    }

    #[test]
    fn a_silent_peer_is_probed_at_each_third_and_given_up_at_the_limit() {
        let mut scene = Scene::new();
        let start = scene.now;
        assert_eq!(scene.wait(100_000), KeepaliveAction::Ping);
        assert!(scene.now - start >= LIMIT / 3 && scene.now - start <= LIMIT / 3 + MOMENT);
        assert_eq!(scene.wait(100_000), KeepaliveAction::Ping);
        assert!(scene.now - start >= LIMIT * 2 / 3 && scene.now - start <= LIMIT * 2 / 3 + MOMENT);
        assert!(is_dead_after(scene.wait(100_000), 9000));
        assert_eq!(scene.now - start, LIMIT);
    }

    #[test]
    fn a_peer_that_is_heard_is_never_probed_and_one_that_answers_lives() {
        let mut scene = Scene::new();
        for _ in 0..100 {
            assert!(matches!(scene.wait(2900), KeepaliveAction::Wait(_)));
            scene.heard();
        }
        for _ in 0..100 {
            assert_eq!(scene.wait(3500), KeepaliveAction::Ping);
            scene.heard();
        }
        assert_eq!(scene.wait(4000), KeepaliveAction::Ping);
        assert_eq!(scene.wait(4000), KeepaliveAction::Ping);
        scene.pass(2900).heard();
        assert!(matches!(scene.wait(2900), KeepaliveAction::Wait(_)));
    }

    #[test]
    fn one_ping_per_third_however_often_it_is_polled() {
        let mut scene = Scene::new();
        let mut pings = 0;
        for _ in 0..8999 {
            pings += u32::from(scene.pass(1).poll() == KeepaliveAction::Ping);
        }
        assert_eq!(pings, 2);
        assert!(is_dead_after(scene.pass(1).poll(), 9000));
    }

    #[test]
    fn a_loop_that_was_held_up_asks_before_it_judges() {
        let mut scene = Scene::new();
        scene.pass(60_000);
        assert_eq!(scene.poll(), KeepaliveAction::Ping);
        assert!(scene.is_waiting());
        assert!(scene.pass(2999).is_waiting());
        assert!(is_dead_after(scene.wait(10), 63_000));
    }

    #[test]
    fn a_long_absence_is_no_silence_and_a_fresh_probe_gets_its_time() {
        let mut scene = Scene::new();
        assert_eq!(scene.wait(4000), KeepaliveAction::Ping);
        assert_eq!(scene.wait(4000), KeepaliveAction::Ping);
        scene.pass(2900);
        assert!(scene.is_waiting(), "0.1 s before the limit");
        scene.be_away(5 * 60_000);
        assert_eq!(scene.poll(), KeepaliveAction::Ping);
        assert!(scene.pass(2900).is_waiting());
        assert!(is_dead_after(scene.wait(1000), 8900 + 3000));
    }

    #[test]
    fn a_peer_that_answered_during_a_long_absence_lives() {
        let mut scene = Scene::new();
        for _ in 0..10 {
            assert_eq!(scene.wait(4000), KeepaliveAction::Ping);
            scene.be_away(60_000);
            scene.heard(); // the answer waited in the link
            assert!(scene.is_waiting());
        }
    }

    #[test]
    fn an_idle_client_that_comes_back_now_and_then_gets_an_answer_each_time() {
        let mut scene = Scene::new();
        for _ in 0..10 {
            scene.be_away(60_000);
            assert_eq!(scene.poll(), KeepaliveAction::Ping);
            scene.pass(1).heard();
            assert!(scene.is_waiting());
        }
    }

    #[test]
    fn a_caller_that_only_looks_in_learns_of_a_dead_peer() {
        let mut scene = Scene::new();
        for _ in 0..ABSENCES_MAX {
            scene.be_away(5000);
            assert_eq!(scene.poll(), KeepaliveAction::Ping);
        }
        scene.be_away(5000);
        assert!(is_dead_after(scene.poll(), 20_000));
    }

    #[test]
    fn short_calls_with_short_absences_are_like_one_long_call() {
        let mut scene = Scene::new();
        let (mut pings, mut steps) = (0, 0);
        let dead = loop {
            scene.be_away(1);
            steps += 1;
            match scene.poll() {
                KeepaliveAction::Ping => pings += 1,
                KeepaliveAction::Wait(_) => assert!(steps < 100_000),
                dead => break dead,
            }
        };
        assert_eq!(pings, 2, "no storm of pings");
        assert!(is_dead_after(dead, 9000));
    }

    #[test]
    fn nothing_is_asked_while_the_caller_is_away() {
        let mut scene = Scene::new();
        scene.keepalive.pause(scene.now);
        assert!(scene.pass(1_000_000).is_waiting());
        scene.keepalive.pause(scene.now); // pausing twice is pausing once
        scene.keepalive.resume(scene.now);
        assert_eq!(scene.poll(), KeepaliveAction::Ping);
        scene.keepalive.resume(scene.now);
        assert!(scene.is_waiting());
    }

    #[test]
    fn zero_switches_it_off_and_no_limit_is_too_long() {
        for limit in [Duration::ZERO, Duration::MAX] {
            let mut scene = Scene::new();
            scene.keepalive = Keepalive::new(limit, scene.now);
            assert!(scene.pass(3_600_000).is_waiting());
            scene.be_away(3_600_000);
            if limit.is_zero() {
                assert!(scene.is_waiting());
            }
        }
    }
}
