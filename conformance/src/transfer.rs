//! Announced messages: the receiver chooses where large data lands.

use crate::{Make, Pair, pattern};
use libxio::{
    Buffer, CancelOutcome, Error, Event, Incoming, Landing, OutgoingOneWay, OutgoingRequest,
    OutgoingResponse, Receipt, SendOptions, Sgl,
};

/// A server that takes at most 1,000 bytes unannounced.
fn pair(make: Make<'_>) -> Pair {
    let limit = |options: &mut libxio::ContextOptions| options.limits.immediate_bytes_max = 1000;
    Pair::with(make(), |_| {}, limit, Default::default())
}

#[track_caller]
fn incoming(pair: &mut Pair) -> Incoming {
    match pair.server_event() {
        Event::Incoming(incoming) => incoming,
        other => panic!("not announced but {other:?}"),
    }
}

/// Memory of the application, and where it is.
fn memory(length: usize) -> (Sgl, *mut u8) {
    let buffer = Buffer::from_vec(vec![0; length]);
    let address = buffer.as_ptr();
    let mut list = Sgl::new();
    list.push(buffer).unwrap();
    (list, address)
}

/// Requests and one-way messages of more than the limit are announced, and land where the receiver says.
pub fn large_data_lands_where_the_receiver_says(make: Make<'_>) {
    let mut pair = pair(make);
    let (connection, _) = pair.connect();
    for length in [1000, 1001, 50_000, 4 << 20] {
        let data = pattern(length, 7);
        let request = OutgoingRequest {
            data: data.clone().into(),
            landing: Landing::Pool(16),
            ..OutgoingRequest::new(b"large", 1)
        };
        pair.client.request(connection, request).unwrap();
        let notify = SendOptions { notify: Some(3), ..SendOptions::default() };
        let message = OutgoingOneWay {
            header: b"way",
            data: data.clone().into(),
            options: notify,
            ..Default::default()
        };
        pair.client.send(connection, message).unwrap();
        let mut addresses = Vec::new();
        if length > 1000 {
            let (first, second) = (incoming(&mut pair), incoming(&mut pair));
            assert_eq!((first.header(), first.data_length() as usize), (&b"large"[..], length));
            assert_eq!((second.header(), second.data_length() as usize), (&b"way"[..], length));
            assert_eq!(pair.server.pool().bytes_in_use(), 0);
            pair.settle();
            assert!(pair.server_events.is_empty(), "nothing comes before it is asked for");
            // In the other order, into memory that is longer than needed.
            for incoming in [second, first] {
                let (list, address) = memory(length + 5);
                addresses.push(address);
                pair.server.assign(incoming, list).unwrap();
            }
        }
        for _ in 0..2 {
            match pair.server_event() {
                Event::Request(mut request) => {
                    assert!(request.data().to_vec() == data);
                    let data = request.take_data();
                    let landed = data.pieces()[0].as_ptr();
                    assert!(addresses.is_empty() || landed == addresses[1]);
                    let answer = Sgl::from(b"got it".to_vec());
                    pair.server.respond(request, OutgoingResponse { header: b"", data: answer }).unwrap();
                }
                Event::OneWay(message) => {
                    assert!(message.data().to_vec() == data);
                    let landed = message.data().pieces()[0].as_ptr();
                    assert!(addresses.is_empty() || landed == addresses[0]);
                    pair.server.release(message, Receipt::Accepted).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
        pair.until("response and notice", |pair| pair.client_events.len() == 2);
        for event in std::mem::take(&mut pair.client_events) {
            match event {
                Event::Response { outcome, .. } => assert_eq!(outcome.unwrap().data.to_vec(), b"got it"),
                Event::Sent { token: 3, outcome, .. } => assert!(outcome.unwrap().to_vec() == data),
                other => panic!("{other:?}"),
            }
        }
    }
    pair.finish(connection);
}

/// Other messages pass while announced data waits.
pub fn an_announcement_holds_nothing_up(make: Make<'_>) {
    let mut pair = pair(make);
    let (connection, _) = pair.connect();
    let large = OutgoingRequest { data: vec![0; 2000].into(), ..OutgoingRequest::new(b"", 1) };
    pair.client.request(connection, large).unwrap();
    let waiting = incoming(&mut pair);
    for _ in 0..5 {
        pair.echo(connection, OutgoingRequest::new(b"small", 2));
    }
    pair.server.assign(waiting, memory(2000).0).unwrap();
    drop(pair.request());
    assert!(matches!(pair.client_event(), Event::Response { token: 1, .. }));
    pair.finish(connection);
}

/// What is not wanted is not sent, and its sender's memory is free.
pub fn unwanted_data_is_not_sent(make: Make<'_>) {
    let mut pair = pair(make);
    let (connection, _) = pair.connect();
    let data = || pattern(100_000, 1).into();
    let options = SendOptions { receipt: true, notify: Some(4), ..SendOptions::default() };
    let message = OutgoingOneWay { data: data(), token: 5, options, ..Default::default() };
    pair.client.send(connection, message).unwrap();
    drop(incoming(&mut pair));
    assert!(matches!(pair.client_event(), Event::Sent { token: 4, outcome: Ok(_), .. }));
    assert!(matches!(pair.client_event(), Event::Receipt { token: 5, outcome: Ok(Receipt::Rejected), .. }));
    let request = OutgoingRequest { data: data(), ..OutgoingRequest::new(b"", 6) };
    pair.client.request(connection, request).unwrap();
    drop(incoming(&mut pair));
    assert!(matches!(pair.client_event(), Event::Response { token: 6, outcome: Err(Error::Unanswered), .. }));
    // Memory that is too short: the same.
    let request = OutgoingRequest { data: data(), ..OutgoingRequest::new(b"", 7) };
    pair.client.request(connection, request).unwrap();
    let announced = incoming(&mut pair);
    let short = pair.server.assign(announced, memory(99_999).0);
    assert!(matches!(short, Err(Error::LimitExceeded { .. })), "{short:?}");
    assert!(matches!(pair.client_event(), Event::Response { token: 7, outcome: Err(Error::Unanswered), .. }));
    assert!(pair.client.statistics().snapshot().bytes_sent < 10_000, "no data has travelled");
    pair.finish(connection);
}

/// A request can be cancelled between its announcement and its data.
pub fn an_announced_request_can_be_cancelled(make: Make<'_>) {
    let mut pair = pair(make);
    let (connection, _) = pair.connect();
    let large = OutgoingRequest { data: vec![1; 2000].into(), ..OutgoingRequest::new(b"", 1) };
    let id = pair.client.request(connection, large).unwrap();
    let announced = incoming(&mut pair);
    pair.client.cancel(connection, id).unwrap();
    let Event::Cancel { id: asked, .. } = pair.server_event() else { panic!() };
    assert_eq!(Some(asked), announced.id());
    drop(announced);
    let Event::CancelEnded { outcome: Ok(CancelOutcome::Cancelled), .. } = pair.client_event() else {
        panic!()
    };
    assert!(matches!(pair.client_event(), Event::Response { outcome: Err(Error::Cancelled), .. }));
    pair.echo(connection, OutgoingRequest::new(b"again", 2));
    pair.finish(connection);
}

/// Memory that was assigned is given back when the connection ends.
pub fn a_lost_connection_gives_assigned_memory_back(make: Make<'_>) {
    let mut pair = pair(make);
    let (connection, there) = pair.connect();
    let large = || vec![1; 1 << 20].into();
    pair.client.send(connection, OutgoingOneWay { data: large(), ..Default::default() }).unwrap();
    let request = OutgoingRequest { data: large(), ..OutgoingRequest::new(b"", 1) };
    pair.client.request(connection, request).unwrap();
    let (first, second) = (incoming(&mut pair), incoming(&mut pair));
    let list = pair.server.pool().take_list(1 << 20).unwrap();
    pair.server.assign(first, list).unwrap();
    pair.server.abort(there).unwrap();
    let late = pair.server.assign(second, memory(1 << 20).0);
    assert!(matches!(late, Err(Error::StaleHandle(_))), "{late:?}");
    pair.until("the loss at the client", |pair| {
        pair.client_events.iter().any(|event| matches!(event, Event::Closed { .. }))
    });
    pair.assert_nothing_left();
}
