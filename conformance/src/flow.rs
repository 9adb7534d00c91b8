//! Flow control: by messages and by bytes.

use crate::{Make, Pair, pattern};
use libxio::{Error, Event, OutgoingOneWay, OutgoingRequest, OutgoingResponse};

/// Slots and sizes are limited.
pub fn slots_and_sizes_are_limited(make: Make<'_>) {
    let mut pair = Pair::with(make(), |_| {}, |server| server.limits.peer_slots = 3, Default::default());
    let (connection, _) = pair.connect();
    for token in 0..3 {
        pair.client.request(connection, OutgoingRequest::new(b"x", token)).unwrap();
    }
    assert_eq!(pair.client.free_slots(connection).unwrap(), 0);
    let fourth = pair.client.request(connection, OutgoingRequest::new(b"x", 3));
    assert!(matches!(fourth, Err(Error::SlotsExhausted(3))), "{fourth:?}");
    drop(pair.request());
    assert!(matches!(pair.client_event(), Event::Response { .. }));
    let limits = pair.client.peer_limits(connection).unwrap();
    let header = vec![0; limits.header_bytes_max as usize + 1];
    let long = pair.client.request(connection, OutgoingRequest::new(&header, 3));
    assert!(matches!(long, Err(Error::LimitExceeded { .. })), "{long:?}");
    let data = vec![0; limits.data_bytes_max as usize + 1];
    let large = pair
        .client
        .request(connection, OutgoingRequest { data: data.into(), ..OutgoingRequest::new(b"", 3) });
    assert!(matches!(large, Err(Error::LimitExceeded { .. })), "{large:?}");
}

/// A receiver that does not answer stops its sender by bytes.
pub fn a_receiver_that_does_not_answer_stops_its_sender_by_bytes(make: Make<'_>) {
    let window = 1 << 20;
    let mut pair = Pair::with(
        make(),
        |_| {},
        |server| {
            server.limits.window_bytes = window;
            server.limits.data_bytes_max = 256 << 10;
        },
        Default::default(),
    );
    let (connection, _) = pair.connect();
    for token in 0..20 {
        let data = pattern(256 << 10, token as u8).into();
        pair.client
            .request(connection, OutgoingRequest { data, ..OutgoingRequest::new(b"w", token) })
            .unwrap();
    }
    pair.until("as many as the window holds", |pair| pair.server_events.len() >= 4);
    for _ in 0..2000 {
        pair.step();
    }
    assert_eq!(pair.server_events.len(), 4, "as many as the window holds");
    let mut answered = 0;
    while answered < 20 {
        let request = pair.request();
        assert_eq!(request.data().to_vec(), pattern(256 << 10, answered as u8));
        pair.server.respond(request, OutgoingResponse::default()).unwrap();
        answered += 1;
        let in_use = pair.server.pool().bytes_in_use() as u64;
        assert!(in_use <= window, "{in_use} bytes are held");
    }
    pair.until("all responses", |pair| pair.client_events.len() == 20);
}
/// What holds a sender up can be read, by connection and from another thread.
pub fn limits_are_visible_in_statistics(make: Make<'_>) {
    let small = |options: &mut libxio::ContextOptions| {
        options.limits.window_bytes = 4096;
        options.limits.data_bytes_max = 4096;
        options.limits.peer_slots = 4;
        options.limits.one_way_max = 2;
    };
    let mut pair = Pair::with(make(), |_| {}, small, Default::default());
    let (here, there) = pair.connect();
    let request = |token| OutgoingRequest { data: vec![0; 3000].into(), ..OutgoingRequest::new(b"", token) };
    pair.client.request(here, request(1)).unwrap();
    pair.client.request(here, request(2)).unwrap();
    pair.client.send(here, OutgoingOneWay::default()).unwrap();
    pair.settle();
    let seen = pair.client.connection_statistics(here).unwrap();
    assert_eq!((seen.requests_sent, seen.requests_outstanding, seen.slots_free), (2, 2, 2));
    assert_eq!((seen.one_way_sent, seen.one_way_unacknowledged, seen.one_way_free), (1, 1, 1));
    // The message waits behind the request, for the order's sake.
    assert_eq!((seen.waiting_for_grant, seen.grant_left_bytes, seen.unsent_bytes), (2, 1096, 0));
    let seen = pair.server.connection_statistics(there).unwrap();
    assert_eq!((seen.requests_received, seen.requests_running, seen.held_bytes), (1, 1, 3000));
    let mut answered = 0;
    while answered < 2 {
        let request = pair.request();
        pair.server.respond(request, OutgoingResponse::default()).unwrap();
        answered += 1;
    }
    let Event::OneWay(message) = pair.server_event() else { panic!() };
    assert_eq!(pair.server.connection_statistics(there).unwrap().one_way_held, 1);
    drop(message);
    pair.until("the end of all", |pair| {
        pair.client.connection_statistics(here).unwrap().one_way_unacknowledged == 0
            && pair.client_events.len() == 2
    });
    let (client, server) = (pair.client.handle().statistics(), pair.server.handle().statistics());
    std::thread::spawn(move || {
        assert_eq!((client.request_latency().snapshot().count(), client.snapshot().grant_stalls), (2, 2));
        assert_eq!(server.service_time().snapshot().count(), 2);
    })
    .join()
    .unwrap();
    pair.finish(here);
}
