//! Requests that end before their answer.

use crate::{Make, Pair, pattern};
use libxio::{
    CancelOutcome, Connection, Error, Event, Landing, OutgoingRequest, OutgoingResponse, Request, RequestId,
    SendOptions, Sgl,
};
use std::time::Duration;

fn ended(event: Event) -> (u64, CancelOutcome) {
    match event {
        Event::CancelEnded { token, outcome, .. } => (token, outcome.unwrap()),
        other => panic!("not the result of a cancel but {other:?}"),
    }
}

/// Sends a request that is late while the server's application holds it. On a slow machine it may be late before the
/// application has seen it, and is then taken back: once more.
fn late(pair: &mut Pair, connection: Connection, token: u64) -> (RequestId, Request) {
    let options = SendOptions { timeout: Some(Duration::from_millis(30)), ..SendOptions::default() };
    loop {
        let landing = Landing::Place(vec![0; 100].into());
        let request = OutgoingRequest { landing, ..OutgoingRequest::new(b"slow", token) };
        let id = pair.client.request_with(connection, request, options).unwrap();
        pair.until("the request, or its end", |pair| {
            !pair.server_events.is_empty() || pair.client_events.len() == 2
        });
        if !pair.server_events.is_empty() {
            return (id, pair.request());
        }
        pair.client_events.clear();
    }
}

fn failed(event: Event) -> (u64, Error) {
    match event {
        Event::Response { token, outcome: Err(error), .. } => (token, error),
        other => panic!("not a failed response but {other:?}"),
    }
}

/// A request that the application holds is given up when it agrees, by abandoning or dropping it.
pub fn the_responder_may_give_a_request_up(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, there) = pair.connect();
    for abandon in [true, false] {
        let id = pair.client.request(connection, OutgoingRequest::new(b"long", 5)).unwrap();
        let request = pair.request();
        pair.client.cancel(connection, id).unwrap();
        pair.client.cancel(connection, id).unwrap();
        let Event::Cancel { connection: asked, id: which } = pair.server_event() else { panic!() };
        assert_eq!((asked, which), (there, request.id()));
        if abandon {
            pair.server.abandon(request).unwrap();
        } else {
            drop(request);
        }
        assert_eq!(ended(pair.client_event()), (5, CancelOutcome::Cancelled));
        assert!(matches!(failed(pair.client_event()), (5, Error::Cancelled)));
        assert!(matches!(pair.client.cancel(connection, id), Err(Error::StaleHandle(_))), "it has ended");
    }
    pair.echo(connection, OutgoingRequest::new(b"the slot is good again", 6));
    pair.finish(connection);
}

/// The application may answer all the same.
pub fn an_answer_may_come_all_the_same(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let request = OutgoingRequest { landing: Landing::Pool(10), ..OutgoingRequest::new(b"quick", 5) };
    let id = pair.client.request(connection, request).unwrap();
    let request = pair.request();
    pair.client.cancel(connection, id).unwrap();
    assert!(matches!(pair.server_event(), Event::Cancel { .. }));
    let data = Sgl::from(b"done".to_vec());
    pair.server.respond(request, OutgoingResponse { header: b"", data }).unwrap();
    assert_eq!(ended(pair.client_event()), (5, CancelOutcome::TooLate));
    let Event::Response { outcome: Ok(reply), .. } = pair.client_event() else { panic!() };
    assert_eq!(reply.data.to_vec(), b"done");
    drop(reply);
    pair.finish(connection);
}

/// A cancel that crosses the answer is too late, and is answered once.
pub fn a_cancel_that_crosses_the_answer_is_too_late(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    for _ in 0..3 {
        let id = pair.client.request(connection, OutgoingRequest::new(b"x", 5)).unwrap();
        let request = pair.request();
        pair.server.respond(request, OutgoingResponse::default()).unwrap();
        pair.client.cancel(connection, id).unwrap();
        assert_eq!(ended(pair.client_event()), (5, CancelOutcome::TooLate));
        assert!(matches!(pair.client_event(), Event::Response { outcome: Ok(_), .. }));
        pair.settle();
        assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
    }
    pair.finish(connection);
}

/// A request that the application has not seen is taken from its events.
pub fn a_request_that_nobody_has_seen_is_not_delivered(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let data = pattern(5000, 1).into();
    let first = OutgoingRequest { data, ..OutgoingRequest::new(b"first", 1) };
    let id = pair.client.request(connection, first).unwrap();
    pair.client.request(connection, OutgoingRequest::new(b"second", 2)).unwrap();
    pair.client.cancel(connection, id).unwrap();
    // All three travel together, so the cancel is there before the server's application looks.
    pair.until("the second request", |pair| !pair.server_events.is_empty());
    let mut seen = Vec::new();
    loop {
        for event in std::mem::take(&mut pair.server_events) {
            match event {
                Event::Request(request) => {
                    seen.push(request.header().to_vec());
                    drop(request);
                }
                // Where the frames did not arrive in one piece.
                Event::Cancel { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if pair.client_events.len() == 3 {
            break;
        }
        pair.step();
    }
    assert_eq!(ended(pair.client_events.remove(0)), (1, CancelOutcome::Cancelled));
    assert!(matches!(failed(pair.client_events.remove(0)), (1, Error::Cancelled)));
    assert!(matches!(failed(pair.client_events.remove(0)), (2, Error::Unanswered)));
    assert!(seen.contains(&b"second".to_vec()));
    pair.finish(connection);
}

/// A request that waits for its grant is taken back without a word to the peer.
pub fn a_request_that_was_not_sent_is_taken_back(make: Make<'_>) {
    let small = |options: &mut libxio::ContextOptions| {
        options.limits.window_bytes = 4096;
        options.limits.data_bytes_max = 4096;
    };
    let mut pair = Pair::with(make(), |_| {}, small, Default::default());
    let (connection, _) = pair.connect();
    let request = |token| OutgoingRequest { data: vec![0; 4096].into(), ..OutgoingRequest::new(b"", token) };
    pair.client.request(connection, request(1)).unwrap();
    let id = pair.client.request(connection, request(2)).unwrap();
    pair.client.request(connection, request(3)).unwrap();
    pair.client.cancel(connection, id).unwrap();
    assert_eq!(ended(pair.client_event()), (2, CancelOutcome::Cancelled));
    assert!(matches!(failed(pair.client_event()), (2, Error::Cancelled)));
    for token in [1, 3] {
        let request = pair.request();
        pair.server.respond(request, OutgoingResponse::default()).unwrap();
        assert!(matches!(pair.client_event(), Event::Response { token: found, .. } if found == token));
    }
    // Its slot and number are used again.
    pair.echo(connection, OutgoingRequest { landing: Landing::Pool(4096), ..request(4) });
    pair.echo(connection, OutgoingRequest { landing: Landing::Pool(4096), ..request(5) });
    pair.finish(connection);
}

/// A late request ends at its deadline; slot and memory stay in use until the peer has confirmed.
pub fn a_late_request_keeps_its_slot_until_the_peer_confirms(make: Make<'_>) {
    let one = |options: &mut libxio::ContextOptions| options.limits.peer_slots = 1;
    let mut pair = Pair::with(make(), |_| {}, one, Default::default());
    let (connection, _) = pair.connect();
    for answered in [true, false] {
        let (id, request) = late(&mut pair, connection, 7);
        assert!(matches!(failed(pair.client_event()), (7, Error::DeadlineExceeded(30))));
        assert!(matches!(pair.client.cancel(connection, id), Err(Error::StaleHandle(_))));
        assert!(matches!(pair.server_event(), Event::Cancel { .. }));
        assert_eq!(pair.client.free_slots(connection).unwrap(), 0);
        let again = pair.client.request(connection, OutgoingRequest::new(b"", 8));
        assert!(matches!(again, Err(Error::SlotsExhausted(1))), "{again:?}");
        if answered {
            let data = Sgl::from(b"late".to_vec());
            pair.server.respond(request, OutgoingResponse { header: b"", data }).unwrap();
        } else {
            drop(request);
        }
        assert!(matches!(pair.client_event(), Event::Released { token: 7, .. }));
        assert_eq!(pair.client.free_slots(connection).unwrap(), 1);
    }
    let statistics = pair.client.statistics().snapshot();
    assert!(statistics.deadlines_exceeded >= 2 && statistics.cancels >= 2, "{statistics:?}");
    pair.echo(connection, OutgoingRequest::new(b"in time", 9));
    pair.finish(connection);
}

/// A deadline also ends a request that was not sent yet, and does nothing to one that is in time.
pub fn deadlines_hold_before_the_grant_and_pass_after_the_answer(make: Make<'_>) {
    let small = |options: &mut libxio::ContextOptions| {
        options.limits.window_bytes = 4096;
        options.limits.data_bytes_max = 4096;
    };
    let mut pair = Pair::with(make(), |_| {}, small, Default::default());
    let (connection, _) = pair.connect();
    let request = |token| OutgoingRequest { data: vec![0; 4096].into(), ..OutgoingRequest::new(b"", token) };
    let options = SendOptions { timeout: Some(Duration::from_millis(40)), ..SendOptions::default() };
    pair.client.request(connection, request(1)).unwrap();
    pair.client.request_with(connection, request(2), options).unwrap();
    assert!(matches!(failed(pair.client_event()), (2, Error::DeadlineExceeded(40))));
    assert_eq!(pair.client.statistics().snapshot().waiting_for_grant, 0);
    let first = pair.request();
    pair.server.respond(first, OutgoingResponse::default()).unwrap();
    assert!(matches!(pair.client_event(), Event::Response { token: 1, .. }));
    let options = SendOptions { timeout: Some(Duration::from_secs(15)), ..SendOptions::default() };
    pair.client.request_with(connection, request(3), options).unwrap();
    let third = pair.request();
    pair.server.respond(third, OutgoingResponse::default()).unwrap();
    assert!(matches!(pair.client_event(), Event::Response { token: 3, outcome: Ok(_), .. }));
    assert_eq!(pair.client.statistics().snapshot().deadlines_exceeded, 1);
    pair.finish(connection);
}

/// A lost connection answers for cancels and late requests too.
pub fn a_lost_connection_ends_cancels(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let id = pair.client.request(connection, OutgoingRequest::new(b"", 1)).unwrap();
    let first = pair.request();
    let (_, second) = late(&mut pair, connection, 2);
    assert!(matches!(failed(pair.client_event()), (2, Error::DeadlineExceeded(30))));
    let held = [first, second];
    pair.client.cancel(connection, id).unwrap();
    pair.client.abort(connection).unwrap();
    let Event::CancelEnded { token: 1, outcome: Err(Error::ClosedLocally), .. } = pair.client_event() else {
        panic!()
    };
    assert!(matches!(failed(pair.client_event()), (1, Error::ClosedLocally)));
    assert!(matches!(pair.client_event(), Event::Released { token: 2, .. }));
    assert!(matches!(pair.client_event(), Event::Closed { .. }));
    pair.until("the loss at the server", |pair| {
        pair.server_events.iter().any(|event| matches!(event, Event::Closed { .. }))
    });
    drop(held);
    pair.assert_nothing_left();
}
