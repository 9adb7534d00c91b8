//! Connections that end, in every order.

use crate::{Make, Pair};
use libxio::{Error, Event, OutgoingRequest, OutgoingResponse};

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
