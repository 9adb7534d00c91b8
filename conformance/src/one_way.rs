//! One-way messages, receipts, notices.

use crate::{Make, Pair, pattern};
use libxio::{
    Buffer, Error, Event, OneWay, OutgoingOneWay, OutgoingRequest, OutgoingResponse, Receipt, SGL_PIECES_MAX,
    SendOptions, Sgl,
};

/// The next one-way message at the server.
#[track_caller]
fn message(pair: &mut Pair) -> OneWay {
    match pair.server_event() {
        Event::OneWay(message) => message,
        other => panic!("not a one-way message but {other:?}"),
    }
}

fn with_receipt(header: &[u8], token: u64) -> OutgoingOneWay<'_> {
    let options = SendOptions { receipt: true, ..SendOptions::default() };
    OutgoingOneWay { header, token, options, ..OutgoingOneWay::default() }
}

/// Messages arrive in order, with their header and data, and are acknowledged when they are released.
pub fn messages_arrive_in_order(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let lengths = [0, 1, 4096, 0, 300_000, 17, 1 << 20];
    for (number, length) in (0..).zip(lengths) {
        let data = pattern(length, number).into();
        let header = [number];
        pair.client
            .send(connection, OutgoingOneWay { header: &header, data, ..OutgoingOneWay::default() })
            .unwrap();
    }
    for (number, length) in (0..).zip(lengths) {
        let mut message = message(&mut pair);
        assert_eq!((message.header(), message.wants_receipt()), (&[number][..], false));
        assert!(message.take_data().to_vec() == pattern(length, number));
        pair.server.release(message, Receipt::Accepted).unwrap();
    }
    pair.until("the acknowledgement", |pair| pair.client.statistics().snapshot().one_way_unacknowledged == 0);
    assert!(pair.client_events.is_empty(), "a one-way message has no end of its own");
    pair.finish(connection);
}

/// Both sides may send at any time.
pub fn both_sides_send(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, there) = pair.connect();
    let hello = |header| OutgoingOneWay { header, ..OutgoingOneWay::default() };
    for _ in 0..50 {
        pair.client.send(here, hello(b"there")).unwrap();
        pair.server.send(there, hello(b"here")).unwrap();
    }
    pair.until("all messages", |pair| pair.client_events.len() + pair.server_events.len() == 100);
    for event in pair.client_events.drain(..) {
        let Event::OneWay(message) = event else { panic!("{event:?}") };
        assert_eq!(message.header(), b"here");
    }
    for event in pair.server_events.drain(..) {
        let Event::OneWay(message) = event else { panic!("{event:?}") };
        assert_eq!(message.header(), b"there");
    }
    pair.finish(here);
}

/// The sender hears once whether a message was accepted, in whatever order they are released.
pub fn a_receipt_says_accepted_or_rejected(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    for token in 0..4 {
        pair.client.send(connection, with_receipt(b"read me", token)).unwrap();
    }
    pair.until("all messages", |pair| pair.server_events.len() == 4);
    let mut messages: Vec<_> = pair.server_events.drain(..).collect();
    for receipt in [Receipt::Accepted, Receipt::Rejected, Receipt::Accepted] {
        let Some(Event::OneWay(message)) = messages.pop() else { panic!("{messages:?}") };
        assert!(message.wants_receipt());
        pair.server.release(message, receipt).unwrap();
    }
    // Dropped: nobody accepted it.
    drop(messages);
    pair.until("all receipts", |pair| pair.client_events.len() == 4);
    let receipts = pair.client_events.drain(..).map(|event| match event {
        Event::Receipt { token, outcome, .. } => (token, outcome.unwrap()),
        other => panic!("{other:?}"),
    });
    let receipts: Vec<_> = receipts.collect();
    let expected = [Receipt::Accepted, Receipt::Rejected, Receipt::Accepted, Receipt::Rejected];
    assert_eq!(receipts, [3, 2, 1, 0].into_iter().zip(expected).collect::<Vec<_>>());
    pair.finish(connection);
}

/// A request's receipt comes before its response.
pub fn a_request_may_have_a_receipt(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let options = SendOptions { receipt: true, ..SendOptions::default() };
    for (token, receipt) in [(1, Some(Receipt::Accepted)), (2, Some(Receipt::Rejected)), (3, None)] {
        pair.client.request_with(connection, OutgoingRequest::new(b"x", token), options).unwrap();
        let mut request = pair.request();
        assert!(request.wants_receipt());
        if let Some(receipt) = receipt {
            pair.server.give_receipt(&mut request, receipt).unwrap();
            assert!(pair.server.give_receipt(&mut request, receipt).is_err(), "a second one");
            let Event::Receipt { token: found, outcome, .. } = pair.client_event() else { panic!() };
            assert_eq!((found, outcome.unwrap()), (token, receipt));
        }
        pair.server.respond(request, OutgoingResponse::default()).unwrap();
        assert!(matches!(pair.client_event(), Event::Response { outcome: Ok(_), .. }));
    }
    pair.client.request(connection, OutgoingRequest::new(b"x", 4)).unwrap();
    let mut request = pair.request();
    assert!(pair.server.give_receipt(&mut request, Receipt::Accepted).is_err(), "none was asked for");
    drop(request);
    pair.finish(connection);
}

/// The limit on unacknowledged messages holds, and the sender hears when it may go on.
pub fn a_receiver_that_does_not_release_stops_its_sender(make: Make<'_>) {
    let limit = |options: &mut libxio::ContextOptions| options.limits.one_way_max = 8;
    let mut pair = Pair::with(make(), |_| {}, limit, Default::default());
    let (connection, there) = pair.connect();
    assert_eq!(pair.client.free_one_way(connection).unwrap(), 8);
    let mut sent = 0_u8;
    let mut released = 0;
    while released < 40 {
        loop {
            let header = [sent];
            match pair.client.send(connection, OutgoingOneWay { header: &header, ..Default::default() }) {
                Ok(()) => sent += 1,
                Err(Error::OneWayExhausted(8)) => break,
                Err(other) => panic!("{other}"),
            }
        }
        pair.settle();
        assert_eq!(pair.server_events.len(), 8, "as many as the limit");
        assert_eq!(pair.client.statistics().snapshot().one_way_unacknowledged, 8);
        // Nothing else is stopped.
        pair.server.request(there, OutgoingRequest::new(b"still there?", 1)).unwrap();
        let Event::Request(request) = pair.client_event() else { panic!() };
        pair.client.respond(request, OutgoingResponse::default()).unwrap();
        pair.until("the answer", |pair| pair.server_events.len() == 9);
        assert!(matches!(pair.server_events.pop(), Some(Event::Response { .. })));
        for event in std::mem::take(&mut pair.server_events) {
            let Event::OneWay(message) = event else { panic!("{event:?}") };
            assert_eq!(message.header(), [released]);
            released += 1;
            pair.server.release(message, Receipt::Accepted).unwrap();
        }
        let Event::SendReady { connection: ready } = pair.client_event() else { panic!() };
        assert_eq!(ready, connection);
        pair.settle();
        assert!(pair.client_events.is_empty(), "said once: {:?}", pair.client_events);
    }
    pair.finish(connection);
}

/// A side that takes no one-way messages is sent none.
pub fn a_side_may_take_no_messages(make: Make<'_>) {
    let none = |options: &mut libxio::ContextOptions| options.limits.one_way_max = 0;
    let mut pair = Pair::with(make(), |_| {}, none, Default::default());
    let (here, there) = pair.connect();
    let refused = pair.client.send(here, OutgoingOneWay::default());
    assert!(matches!(refused, Err(Error::OneWayExhausted(0))), "{refused:?}");
    pair.server.send(there, OutgoingOneWay::default()).unwrap();
    assert!(matches!(pair.client_event(), Event::OneWay(_)));
    pair.finish(here);
}

/// Data of one-way messages is bounded by the byte grant, in order with requests.
pub fn data_waits_for_the_byte_grant(make: Make<'_>) {
    let small = |options: &mut libxio::ContextOptions| {
        options.limits.window_bytes = 64 << 10;
        options.limits.data_bytes_max = 32 << 10;
    };
    let mut pair = Pair::with(make(), |_| {}, small, Default::default());
    let (connection, _) = pair.connect();
    for number in 0..10_u8 {
        let data = pattern(32 << 10, number).into();
        if number % 2 == 0 {
            pair.client.send(connection, OutgoingOneWay { data, ..Default::default() }).unwrap();
        } else {
            let request = OutgoingRequest { data, ..OutgoingRequest::new(b"", 1) };
            pair.client.request(connection, request).unwrap();
        }
    }
    pair.settle();
    assert_eq!(pair.server_events.len(), 2, "as many as the window holds");
    assert_eq!(pair.client.statistics().snapshot().waiting_for_grant, 8);
    for number in 0..10_u8 {
        match pair.server_event() {
            Event::OneWay(message) if number % 2 == 0 => {
                assert!(message.data().to_vec() == pattern(32 << 10, number));
                pair.server.release(message, Receipt::Accepted).unwrap();
            }
            Event::Request(request) if number % 2 == 1 => {
                assert!(request.data().to_vec() == pattern(32 << 10, number));
                pair.server.respond(request, OutgoingResponse::default()).unwrap();
            }
            other => panic!("out of order: {other:?}"),
        }
    }
    pair.until("all responses", |pair| pair.client_events.len() == 5);
    pair.finish(connection);
}

/// Whoever asks for it hears that a message is with the transport, and has its memory back.
pub fn a_sender_hears_when_its_memory_is_free(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let data = pattern(200_000, 1);
    let piece = Buffer::from_vec(data.clone());
    let address = piece.as_ptr();
    let mut list = Sgl::new();
    list.push(piece).unwrap();
    let notify = |token| SendOptions { notify: Some(token), ..SendOptions::default() };
    pair.client
        .send(connection, OutgoingOneWay { data: list, options: notify(11), ..Default::default() })
        .unwrap();
    let Event::Sent { token: 11, outcome: Ok(back), .. } = pair.client_event() else { panic!() };
    assert_eq!((back.len(), back.pieces()[0].as_ptr()), (200_000, address));
    drop(message(&mut pair));
    let request = OutgoingRequest { data: data.clone().into(), ..OutgoingRequest::new(b"x", 1) };
    pair.client.request_with(connection, request, notify(12)).unwrap();
    assert!(matches!(pair.client_event(), Event::Sent { token: 12, outcome: Ok(_), .. }));
    let request = pair.request();
    pair.server.respond_with(request, OutgoingResponse::default(), notify(13)).unwrap();
    assert!(matches!(pair.server_event(), Event::Sent { token: 13, outcome: Ok(_), .. }));
    assert!(matches!(pair.client_event(), Event::Response { .. }));
    pair.finish(connection);
}

/// A message may have as many pieces as a list holds, and more than one gathered call takes.
pub fn data_may_have_256_pieces(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    for length in [1, 37, 4096] {
        let mut list = Sgl::new();
        let mut all = Vec::new();
        for number in 0..SGL_PIECES_MAX {
            let piece = pattern(length, number as u8);
            all.extend_from_slice(&piece);
            list.push(Buffer::from_vec(piece)).unwrap();
        }
        assert!(list.push(Buffer::from_static(b"one more")).is_err());
        pair.client.send(connection, OutgoingOneWay { data: list, ..Default::default() }).unwrap();
        assert!(message(&mut pair).data().to_vec() == all, "pieces of {length} bytes changed on the way");
        let mut landing = Sgl::new();
        for _ in 0..SGL_PIECES_MAX {
            landing.push(Buffer::from_vec(vec![0; length])).unwrap();
        }
        let request = OutgoingRequest {
            data: all.clone().into(),
            landing: libxio::Landing::Place(landing),
            ..OutgoingRequest::new(b"", 1)
        };
        assert!(pair.echo(connection, request).data.to_vec() == all);
    }
    pair.finish(connection);
}

/// The hint that more follows reaches the receiver.
pub fn a_sender_says_that_more_follows(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let more = SendOptions { more: true, ..SendOptions::default() };
    pair.client.send(connection, OutgoingOneWay { options: more, ..Default::default() }).unwrap();
    pair.client.request_with(connection, OutgoingRequest::new(b"", 1), more).unwrap();
    pair.client.request(connection, OutgoingRequest::new(b"", 2)).unwrap();
    assert!(message(&mut pair).more());
    assert!(pair.request().more());
    assert!(!pair.request().more());
    pair.finish(connection);
}

/// What was asked for about messages is answered when the connection ends, once.
pub fn a_lost_connection_ends_receipts_and_notices(make: Make<'_>) {
    let small = |options: &mut libxio::ContextOptions| {
        options.limits.window_bytes = 4096;
        options.limits.data_bytes_max = 4096;
    };
    let mut pair = Pair::with(make(), |_| {}, small, Default::default());
    let (connection, _) = pair.connect();
    pair.client.send(connection, with_receipt(b"", 1)).unwrap();
    let held = message(&mut pair);
    let options = SendOptions { receipt: true, notify: Some(12), ..SendOptions::default() };
    for token in [2, 3] {
        let data = vec![0; 4096].into();
        pair.client.send(connection, OutgoingOneWay { data, token, options, ..Default::default() }).unwrap();
    }
    pair.until("the second message", |pair| !pair.server_events.is_empty());
    pair.until("its notice", |pair| !pair.client_events.is_empty());
    assert!(matches!(pair.client_events.remove(0), Event::Sent { token: 12, outcome: Ok(_), .. }));
    pair.client.abort(connection).unwrap();
    let mut events = Vec::new();
    loop {
        match pair.client_event() {
            Event::Receipt { token, outcome: Err(_), .. } => events.push(("receipt", token)),
            Event::Sent { token, outcome: Err(_), .. } => events.push(("sent", token)),
            Event::Closed { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    events.sort_unstable();
    assert_eq!(events, [("receipt", 1), ("receipt", 2), ("receipt", 3), ("sent", 12)]);
    pair.until("the loss at the server", |pair| {
        pair.server_events.iter().any(|event| matches!(event, Event::Closed { .. }))
    });
    assert!(matches!(pair.server.release(held, Receipt::Accepted), Err(Error::StaleHandle(_))));
    pair.assert_nothing_left();
}
