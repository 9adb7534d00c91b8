//! Connections that end, in every order.

use crate::{Make, Pair};
use libxio::{AcceptOptions, Error, Event, OutgoingRequest, OutgoingResponse, RejectReason, Session};
use std::time::Duration;

/// A close reaches the other side after what was sent before.
pub fn a_close_reaches_the_other_side_after_what_was_sent_before(make: Make<'_>) {
    for client_first in [true, false] {
        let mut pair = Pair::new(make());
        let (here, there) = pair.connect();
        if client_first {
            pair.client.request(here, OutgoingRequest::new(b"last", 1)).unwrap();
            pair.client.close(here).unwrap();
            assert!(matches!(pair.server_event(), Event::Request(_)));
            assert!(matches!(pair.server_event(), Event::Closed { reason: Error::Closed(_), .. }));
            assert!(matches!(
                pair.client_event(),
                Event::Response { outcome: Err(Error::ClosedLocally), .. }
            ));
            assert!(matches!(pair.client_event(), Event::Closed { reason: Error::ClosedLocally, .. }));
        } else {
            pair.server.close(there).unwrap();
            assert!(matches!(pair.client_event(), Event::Closed { reason: Error::Closed(_), .. }));
            assert!(matches!(pair.server_event(), Event::Closed { reason: Error::ClosedLocally, .. }));
        }
        assert!(matches!(
            pair.client.request(here, OutgoingRequest::new(b"", 0)),
            Err(Error::StaleHandle(_))
        ));
        assert!(matches!(pair.server.close(there), Err(Error::StaleHandle(_))));
        assert_eq!(pair.client.statistics().snapshot().connections, 0);
        assert_eq!(pair.server.statistics().snapshot().connections, 0);
    }
}

/// An abort ends every request with an error.
pub fn an_abort_ends_every_request_with_an_error(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, _) = pair.connect();
    for token in 0..5 {
        pair.client.request(here, OutgoingRequest::new(b"x", token)).unwrap();
    }
    let held = pair.request();
    pair.client.abort(here).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let Event::Response { token, outcome: Err(Error::ClosedLocally), .. } = pair.client_event() else {
            panic!()
        };
        tokens.push(token);
    }
    assert_eq!(tokens, [0, 1, 2, 3, 4]);
    assert!(matches!(pair.client_event(), Event::Closed { .. }));
    pair.until("the loss at the server", |pair| {
        pair.server_events.iter().any(|event| matches!(event, Event::Closed { .. }))
    });
    assert!(matches!(pair.server.respond(held, OutgoingResponse::default()), Err(Error::StaleHandle(_))));
    pair.server_events.clear();
    pair.step();
    assert_eq!(pair.server.statistics().snapshot().requests_running, 0);
}
/// Both sides close at once: each has its one end.
pub fn both_sides_close_at_once(make: Make<'_>) {
    for abort in [false, true] {
        let mut pair = Pair::new(make());
        let (here, there) = pair.connect();
        pair.client.request(here, OutgoingRequest::new(b"", 1)).unwrap();
        pair.server.request(there, OutgoingRequest::new(b"", 2)).unwrap();
        if abort {
            pair.client.abort(here).unwrap();
            pair.server.abort(there).unwrap();
        } else {
            pair.client.close(here).unwrap();
            pair.server.close(there).unwrap();
            // A second time changes nothing.
            pair.client.close(here).unwrap();
        }
        let over = |events: &[Event]| matches!(events.last(), Some(Event::Closed { .. }));
        pair.until("both ends", |pair| over(&pair.client_events) && over(&pair.server_events));
        pair.settle();
        for (events, token) in [(&pair.client_events, 1), (&pair.server_events, 2)] {
            let ends: Vec<_> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Response { token, outcome: Err(_), .. } => Some(*token),
                    Event::Closed { .. } => Some(0),
                    _ => None,
                })
                .collect();
            assert_eq!(ends, [token, 0], "{events:?}");
        }
        pair.assert_nothing_left();
    }
}

/// A connection may be closed, and a context stopped, from inside an event.
pub fn a_connection_is_closed_inside_an_event(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, there) = pair.connect();
    for token in 0..3 {
        pair.client.request(here, OutgoingRequest::new(b"", token)).unwrap();
    }
    pair.until("the requests", |pair| pair.server_events.len() == 3);
    let handle = pair.server.handle();
    handle.post_message(1, Box::new(())).unwrap();
    let mut closed = 0;
    let waiting = std::mem::take(&mut pair.server_events);
    let mut waiting = Some(waiting);
    pair.server
        .run(|context, event| match event {
            Event::Message { .. } => {
                context.abort(there).unwrap();
                assert!(matches!(context.abort(there), Err(Error::StaleHandle(_))));
                waiting = None;
            }
            Event::Closed { .. } => {
                closed += 1;
                context.stop();
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
    assert_eq!(closed, 1);
    for _ in 0..3 {
        assert!(matches!(pair.client_event(), Event::Response { outcome: Err(_), .. }));
    }
    assert!(matches!(pair.client_event(), Event::Closed { .. }));
    pair.assert_nothing_left();
}

/// A server that stops listening leaves its connections alone, and those that are being set up end.
pub fn a_server_stops_listening(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, _) = pair.connect();
    let late = pair.client.connect(&Session::new(pair.uri.clone()), Default::default());
    pair.server.close_server(pair.listening).unwrap();
    assert!(matches!(pair.server.close_server(pair.listening), Err(Error::StaleHandle(_))));
    assert!(matches!(pair.server.local_uri(pair.listening), Err(Error::StaleHandle(_))));
    if late.is_ok() {
        assert!(matches!(pair.client_event(), Event::Closed { .. }));
    }
    pair.echo(here, OutgoingRequest::new(b"still here", 1));
    let refused = pair.client.connect(&Session::new(pair.uri.clone()), Default::default());
    if refused.is_ok() {
        let Event::Closed { reason: Error::ConnectFailed { .. }, .. } = pair.client_event() else { panic!() };
    }
    pair.finish(here);
}

/// Whichever context goes first, the other side hears of it, and what is left ends in errors.
pub fn either_context_may_go_first(make: Make<'_>) {
    for client_first in [true, false] {
        let mut pair = Pair::new(make());
        let (here, there) = pair.connect();
        pair.client.request(here, OutgoingRequest::new(b"", 1)).unwrap();
        pair.server.request(there, OutgoingRequest::new(b"", 2)).unwrap();
        pair.until("both requests", |pair| !pair.client_events.is_empty() && !pair.server_events.is_empty());
        let Pair { mut client, mut server, client_events, server_events, network, .. } = pair;
        let rest = if client_first {
            drop(client);
            &mut server
        } else {
            drop(server);
            &mut client
        };
        let mut ends = Vec::new();
        for _ in 0..200_000 {
            rest.wait(Some(Duration::ZERO)).unwrap();
            while let Some(event) = rest.next_event() {
                ends.push(event);
            }
            if let Some(network) = &network {
                network.advance(Duration::from_micros(20));
            }
            if matches!(ends.last(), Some(Event::Closed { .. })) {
                break;
            }
        }
        assert!(
            matches!(ends[..], [Event::Response { outcome: Err(_), .. }, Event::Closed { .. }]),
            "{ends:?}"
        );
        // Requests outlive both their contexts.
        drop((client_events, server_events));
    }
}

/// A handshake may be broken off by either side at any point.
pub fn a_handshake_is_broken_off(make: Make<'_>) {
    let mut pair = Pair::new(make());
    // By the client, before and after the server has seen it.
    for seen in [false, true] {
        let here = pair.client.connect(&Session::new(pair.uri.clone()), Default::default()).unwrap();
        let mut request = None;
        if seen {
            let Event::ConnectionRequest(found) = pair.server_event() else { panic!() };
            request = Some(found);
        }
        pair.client.close(here).unwrap();
        let Event::Closed { reason: Error::ClosedLocally, .. } = pair.client_event() else { panic!() };
        pair.settle();
        if let Some(request) = request {
            // Nobody has to tell that the client has gone before it is accepted.
            if pair.server.accept(request, AcceptOptions::new()).is_ok() {
                assert!(matches!(pair.server_event(), Event::Closed { .. }));
            }
        }
        pair.server_events.clear();
    }
    // By the server, without a word.
    pair.client.connect(&Session::new(pair.uri.clone()), Default::default()).unwrap();
    let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
    pair.server.reject(request, RejectReason::Application(7), b"").unwrap();
    let Event::Closed { reason: Error::Rejected { reason, .. }, .. } = pair.client_event() else { panic!() };
    assert_eq!(reason, RejectReason::Application(7));
    pair.assert_nothing_left();
}
