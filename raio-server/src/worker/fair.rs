//! Whose turn it is: requests of many clients, served by bytes in turn.
//!
//! Deficit round robin (M. Shreedhar and G. Varghese, "Efficient Fair Queuing using Deficit Round Robin", 1995): each
//! round every client with something to do may spend a quantum of bytes and keeps what it did not spend, so that a
//! client with large and many requests gets as many bytes as one with small and few, and no more. Pure: no clock, no
//! I/O.

use std::collections::VecDeque;

/// Bytes that a client may spend in each round.
pub(super) const QUANTUM_BYTES: u64 = 64 << 10;

/// A client's number here.
pub(super) type ClientId = usize;

/// Requests of many clients.
#[derive(Debug)]
pub(super) struct Fair<T> {
    clients: Vec<Client<T>>,
    /// Clients that were removed: their places are used again.
    vacant: Vec<ClientId>,
    /// Clients that can be served, the next one first; exactly those whose entry says so.
    round: VecDeque<ClientId>,
}

#[derive(Debug)]
struct Client<T> {
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
        Fair { clients: Vec::new(), vacant: Vec::new(), round: VecDeque::new() }
    }

    /// A new client.
    pub(super) fn add(&mut self) -> ClientId {
        if let Some(id) = self.vacant.pop() {
            return id;
        }
        self.clients.push(Client {
            queue: VecDeque::new(),
            deficit: 0,
            listed: false,
            begun: false,
            paused: false,
        });
        self.clients.len() - 1
    }

    /// Forgets a client; returns what it still had asked for.
    pub(super) fn remove(&mut self, id: ClientId) -> impl Iterator<Item = T> + use<T> {
        self.unlist(id);
        let client = &mut self.clients[id];
        client.paused = false;
        self.vacant.push(id);
        std::mem::take(&mut client.queue).into_iter().map(|(_, item)| item)
    }

    /// Queues a request that costs so many bytes.
    pub(super) fn push(&mut self, id: ClientId, cost: u64, item: T) {
        self.clients[id].queue.push_back((cost, item));
        self.list(id);
    }

    /// Puts a request back that could not be served now, in front of the client's others. What it cost is given back.
    pub(super) fn put_back(&mut self, id: ClientId, cost: u64, item: T) {
        let client = &mut self.clients[id];
        client.queue.push_front((cost, item));
        client.deficit += cost;
        self.list(id);
    }

    /// Leaves a client out until [`Fair::resume`].
    pub(super) fn pause(&mut self, id: ClientId) {
        self.clients[id].paused = true;
        self.unlist(id);
    }

    /// Serves a client again.
    pub(super) fn resume(&mut self, id: ClientId) {
        self.clients[id].paused = false;
        self.list(id);
    }

    /// Requests of a client that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self, id: ClientId) -> usize {
        self.clients[id].queue.len()
    }

    /// Whether [`Fair::next`] has something.
    pub(super) fn is_idle(&self) -> bool {
        self.round.is_empty()
    }

    /// The next request to serve: client, cost, request.
    pub(super) fn next(&mut self) -> Option<(ClientId, u64, T)> {
        loop {
            let id = *self.round.front()?;
            let client = &mut self.clients[id];
            if !client.begun {
                client.begun = true;
                client.deficit += QUANTUM_BYTES;
            }
            match client.queue.front() {
                Some((cost, _)) if *cost <= client.deficit => {}
                Some(_) => {
                    // Its turn is over; what it did not spend it keeps, for a request that costs more than a quantum.
                    client.begun = false;
                    self.round.rotate_left(1);
                    continue;
                }
                None => {
                    self.unlist(id);
                    continue;
                }
            }
            let (cost, item) = client.queue.pop_front()?;
            client.deficit -= cost;
            if client.queue.is_empty() {
                self.unlist(id);
            }
            return Some((id, cost, item));
        }
    }

    fn list(&mut self, id: ClientId) {
        let client = &mut self.clients[id];
        if !client.listed && !client.paused && !client.queue.is_empty() {
            client.listed = true;
            self.round.push_back(id);
        }
    }

    /// Out of the round; who has nothing to do saves nothing up.
    fn unlist(&mut self, id: ClientId) {
        let client = &mut self.clients[id];
        if client.listed {
            client.listed = false;
            // Nearly always the first.
            if let Some(at) = self.round.iter().position(|listed| *listed == id) {
                self.round.remove(at);
            }
        }
        client.begun = false;
        if client.queue.is_empty() {
            client.deficit = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves `count` requests; returns how many of them and how many bytes each client got.
    fn serve(fair: &mut Fair<()>, count: usize, again: &[(ClientId, u64)]) -> Vec<(usize, u64)> {
        let mut got = vec![(0, 0); 8];
        for _ in 0..count {
            let (id, cost, ()) = fair.next().unwrap();
            got[id].0 += 1;
            got[id].1 += cost;
            // The client asks again as soon as it is answered.
            if let Some((_, cost)) = again.iter().find(|(client, _)| *client == id) {
                fair.push(id, *cost, ());
            }
        }
        got
    }

    #[test]
    fn a_deep_queue_of_large_requests_does_not_starve_a_small_one() {
        let mut fair = Fair::new();
        let (large, small) = (fair.add(), fair.add());
        for _ in 0..1024 {
            fair.push(large, 1 << 20, ());
        }
        fair.push(small, 4096, ());
        let mut between = 0;
        let mut longest = 0;
        for _ in 0..200 {
            let (id, ..) = fair.next().unwrap();
            if id == small {
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
        let sizes: Vec<(ClientId, u64)> =
            [512, 4096, 65_536, 1 << 20].into_iter().map(|size| (fair.add(), size)).collect();
        for (id, size) in &sizes {
            for _ in 0..4096 {
                fair.push(*id, *size, ());
            }
        }
        let got = serve(&mut fair, 20_000, &sizes);
        let bytes: Vec<u64> = got.iter().take(4).map(|(_, bytes)| *bytes).collect();
        let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
        assert!(most - least <= (1 << 20) + QUANTUM_BYTES, "{bytes:?}");
    }

    #[test]
    fn requests_of_one_client_keep_their_order_and_what_is_put_back_comes_first() {
        let mut fair = Fair::new();
        let id = fair.add();
        for number in 0..3 {
            fair.push(id, 100_000, number);
        }
        let (_, cost, first) = fair.next().unwrap();
        fair.put_back(id, cost, first);
        let order: Vec<_> = std::iter::from_fn(|| fair.next()).map(|(_, _, number)| number).collect();
        assert_eq!(order, [0, 1, 2]);
        assert!(fair.is_idle());
    }

    #[test]
    fn paused_clients_wait_and_removed_ones_are_gone() {
        let mut fair = Fair::new();
        let (one, two) = (fair.add(), fair.add());
        fair.pause(one);
        fair.push(one, 1, 'a');
        fair.push(two, 1, 'b');
        assert_eq!(fair.next(), Some((two, 1, 'b')));
        assert!(fair.next().is_none() && fair.is_idle() && fair.waiting(one) == 1);
        fair.resume(one);
        assert_eq!(fair.next(), Some((one, 1, 'a')));
        fair.push(one, 1, 'c');
        assert_eq!(fair.remove(one).collect::<Vec<_>>(), ['c']);
        assert!(fair.next().is_none());
        assert_eq!(fair.add(), one, "places are used again");
    }
}
