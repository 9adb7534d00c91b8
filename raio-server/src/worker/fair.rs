//! Whose turn it is: requests of many clients, served by bytes in turn.
//!
//! Each client has a lane for each [`Kind`] of request. A lane that has to wait (for memory, for its answers to be taken)
//! holds up nothing of the other kinds: a write, whose data takes memory, never waits behind a read that needs some.
//!
//! Deficit round robin (M. Shreedhar and G. Varghese, "Efficient Fair Queuing using Deficit Round Robin", 1995): each
//! round every client with something to do may spend a quantum of bytes and keeps what it did not spend, so that a
//! client with large and many requests gets as many bytes as one with small and few, and no more. Pure: no clock, no
//! I/O.

use std::collections::VecDeque;

/// Bytes that a client may spend in each round.
pub(super) const QUANTUM_BYTES: u64 = 64 << 10;

/// What keeps requests waiting depends on what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its answer carries data.
    Data = 0,
    /// Its data came with it, or it has none.
    Plain = 1,
    /// It runs off the loop.
    Call = 2,
}

/// Requests of one client and kind, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane(usize);

impl Lane {
    pub(super) fn new(client: usize, kind: Kind) -> Lane {
        Lane(client * KINDS + kind as usize)
    }

    /// The client.
    pub(super) fn client(self) -> usize {
        self.0 / KINDS
    }

    pub(super) fn kind(self) -> Kind {
        match self.0 % KINDS {
            0 => Kind::Data,
            1 => Kind::Plain,
            _ => Kind::Call,
        }
    }
}

const KINDS: usize = 3;

/// Requests of many clients.
#[derive(Debug)]
pub(super) struct Fair<T> {
    /// By number.
    lanes: Vec<Queue<T>>,
    /// Lanes that can be served, the next one first; exactly those whose entry says so.
    round: VecDeque<Lane>,
}

#[derive(Debug)]
struct Queue<T> {
    /// What it asks for, with its cost in bytes, oldest first.
    queue: VecDeque<(u64, T)>,
    /// Bytes that it may still spend.
    deficit: u64,
    /// In `round`.
    listed: bool,
    /// It has had its quantum of this round.
    begun: bool,
    /// Not to be served until `resume`.
    paused: bool,
}

impl<T> Fair<T> {
    pub(super) fn new() -> Fair<T> {
        Fair { lanes: Vec::new(), round: VecDeque::new() }
    }

    /// A new client, under a number that nobody else has. Numbers are small and used again.
    pub(super) fn add(&mut self, client: usize) {
        while self.lanes.len() < (client + 1) * KINDS {
            self.lanes.push(Queue {
                queue: VecDeque::new(),
                deficit: 0,
                listed: false,
                begun: false,
                paused: false,
            });
        }
    }

    /// Forgets a client, with what it still had asked for; returns how much that was.
    pub(super) fn remove(&mut self, client: usize) -> usize {
        let mut dropped = 0;
        for kind in [Kind::Data, Kind::Plain, Kind::Call] {
            let lane = Lane::new(client, kind);
            self.unlist(lane);
            let entry = &mut self.lanes[lane.0];
            dropped += entry.queue.len();
            entry.queue.clear();
            entry.deficit = 0;
            entry.paused = false;
        }
        dropped
    }

    /// Whether a request that comes now would be the next in turn: nobody waits, and its own lane is not held up.
    #[inline]
    pub(super) fn is_next(&self, lane: Lane) -> bool {
        self.round.is_empty()
            && self.lanes.get(lane.0).is_some_and(|entry| !entry.paused && entry.queue.is_empty())
    }

    /// Queues a request that costs so many bytes.
    pub(super) fn push(&mut self, lane: Lane, cost: u64, item: T) {
        self.lanes[lane.0].queue.push_back((cost, item));
        self.list(lane);
    }

    /// Puts a request back that could not be served now, in front of its lane's others. What it cost is given back.
    pub(super) fn put_back(&mut self, lane: Lane, cost: u64, item: T) {
        let entry = &mut self.lanes[lane.0];
        entry.queue.push_front((cost, item));
        // No more than that: a lane that tries again and again saves nothing up.
        entry.deficit = entry.deficit.saturating_add(cost).min(cost.max(QUANTUM_BYTES));
        self.list(lane);
    }

    /// Leaves a lane out until [`Fair::resume`].
    pub(super) fn pause(&mut self, lane: Lane) {
        self.lanes[lane.0].paused = true;
        self.unlist(lane);
    }

    /// Serves a lane again.
    pub(super) fn resume(&mut self, lane: Lane) {
        self.lanes[lane.0].paused = false;
        self.list(lane);
    }

    /// Whether [`Fair::next`] has something.
    pub(super) fn is_idle(&self) -> bool {
        self.round.is_empty()
    }

    /// The next request to serve: client, cost, request.
    pub(super) fn next(&mut self) -> Option<(Lane, u64, T)> {
        loop {
            let lane = *self.round.front()?;
            let entry = &mut self.lanes[lane.0];
            if !entry.begun {
                entry.begun = true;
                entry.deficit += QUANTUM_BYTES;
            }
            match entry.queue.front() {
                Some((cost, _)) if *cost <= entry.deficit => {}
                Some(_) => {
                    // Its turn is over; what it did not spend it keeps, for a request that costs more than a quantum.
                    entry.begun = false;
                    self.round.rotate_left(1);
                    continue;
                }
                None => {
                    self.unlist(lane);
                    continue;
                }
            }
            let (cost, item) = entry.queue.pop_front()?;
            entry.deficit -= cost;
            if entry.queue.is_empty() {
                self.unlist(lane);
            }
            return Some((lane, cost, item));
        }
    }

    fn list(&mut self, lane: Lane) {
        let entry = &mut self.lanes[lane.0];
        if !entry.listed && !entry.paused && !entry.queue.is_empty() {
            entry.listed = true;
            self.round.push_back(lane);
        }
    }

    /// Out of the round; who has nothing to do saves nothing up.
    fn unlist(&mut self, lane: Lane) {
        let entry = &mut self.lanes[lane.0];
        if entry.listed {
            entry.listed = false;
            // Nearly always the first.
            if let Some(at) = self.round.iter().position(|listed| *listed == lane) {
                self.round.remove(at);
            }
        }
        entry.begun = false;
        // What a lane that waits has not spent is enough for its next request, and no more.
        entry.deficit =
            entry.queue.front().map_or(0, |(cost, _)| entry.deficit.min((*cost).max(QUANTUM_BYTES)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes<T>(fair: &mut Fair<T>, count: usize) -> Vec<Lane> {
        let add = |client| {
            fair.add(client);
            Lane::new(client, Kind::Data)
        };
        (0..count).map(add).collect()
    }

    #[test]
    fn a_deep_queue_of_large_requests_does_not_starve_a_small_one() {
        let mut fair = Fair::new();
        let lanes = lanes(&mut fair, 2);
        let (large, small) = (lanes[0], lanes[1]);
        for _ in 0..1024 {
            fair.push(large, 1 << 20, ());
        }
        fair.push(small, 4096, ());
        let mut between = 0;
        let mut longest = 0;
        for _ in 0..200 {
            let (lane, ..) = fair.next().unwrap();
            if lane == small {
                longest = longest.max(between);
                between = 0;
                fair.push(small, 4096, ());
            } else {
                between += 1;
            }
        }
        assert!(longest <= 1, "{longest} large requests went before a small one");
    }

    #[test]
    fn bytes_are_shared_evenly_whatever_the_sizes() {
        let mut fair = Fair::new();
        let sizes = [512, 4096, 65_536, 1 << 20];
        let lanes = lanes(&mut fair, sizes.len());
        for (lane, size) in lanes.iter().zip(sizes) {
            for _ in 0..16 {
                fair.push(*lane, size, ());
            }
        }
        let mut bytes = [0; 4];
        for _ in 0..20_000 {
            let (lane, cost, ()) = fair.next().unwrap();
            bytes[lane.client()] += cost;
            // The client asks again as soon as it is answered.
            fair.push(lane, cost, ());
        }
        let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
        assert!(most - least <= (1 << 20) + QUANTUM_BYTES, "{bytes:?}");
    }

    #[test]
    fn requests_of_one_lane_keep_their_order_and_what_is_put_back_comes_first() {
        let mut fair = Fair::new();
        let lane = lanes(&mut fair, 1)[0];
        for number in 0..3 {
            fair.push(lane, 100_000, number);
        }
        let (_, cost, first) = fair.next().unwrap();
        fair.put_back(lane, cost, first);
        let order: Vec<_> = std::iter::from_fn(|| fair.next()).map(|(_, _, number)| number).collect();
        assert_eq!(order, [0, 1, 2]);
        assert!(fair.is_idle());
    }

    #[test]
    fn a_lane_that_tries_in_vain_saves_nothing_up() {
        let mut fair = Fair::new();
        let lanes = lanes(&mut fair, 2);
        for _ in 0..64 {
            fair.push(lanes[0], 16 << 10, ());
        }
        for _ in 0..1000 {
            let (lane, cost, ()) = fair.next().unwrap();
            fair.put_back(lane, cost, ());
            fair.pause(lane);
            fair.resume(lane);
        }
        fair.push(lanes[1], 4096, ());
        let before = std::iter::from_fn(|| fair.next()).position(|(lane, ..)| lane == lanes[1]).unwrap();
        assert!(before as u64 <= 2 * QUANTUM_BYTES / (16 << 10), "{before} requests went before");
    }

    #[test]
    fn paused_lanes_wait_alone_and_removed_clients_are_gone() {
        let mut fair = Fair::new();
        let two = lanes(&mut fair, 2)[1];
        let (one, writes) = (Lane::new(0, Kind::Data), Lane::new(0, Kind::Plain));
        fair.pause(one);
        fair.push(one, 1, 'a');
        fair.push(two, 1, 'b');
        fair.push(writes, 1, 'w');
        assert_eq!(fair.next(), Some((two, 1, 'b')));
        assert_eq!(fair.next(), Some((writes, 1, 'w')));
        assert!(fair.next().is_none() && fair.is_idle());
        fair.resume(one);
        assert_eq!(fair.next(), Some((one, 1, 'a')));
        fair.push(one, 1, 'c');
        fair.push(writes, 1, 'd');
        fair.pause(one);
        assert_eq!(fair.remove(0), 2);
        assert!(fair.next().is_none());
        fair.push(one, 1, 'e');
        assert_eq!(fair.next(), Some((one, 1, 'e')), "the number's next owner is not paused");
    }
}
