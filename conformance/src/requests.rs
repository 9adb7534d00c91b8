//! Requests and responses.

use crate::{Make, Pair, pattern};
use libxio::{Buffer, Error, Event, Landing, OutgoingRequest, OutgoingResponse, Sgl};

/// A request comes back with its header and data.
pub fn a_request_comes_back_with_its_header_and_data(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    for (number, length) in [0, 1, 511, 4096, 65_536, 1 << 20, 4 << 20].into_iter().enumerate() {
        let sent = pattern(length, number as u8);
        let landing = pair.client.pool().take_list(length).unwrap();
        let request = OutgoingRequest {
            data: sent.clone().into(),
            landing: Landing::Place(landing),
            ..OutgoingRequest::new(b"header", 7)
        };
        let reply = pair.echo(connection, request);
        assert_eq!(&reply.header[..], b"header");
        assert!(reply.data.to_vec() == sent, "data of {length} bytes changed on the way");
    }
    drop(pair.client_events);
    assert_eq!(pair.server.pool().bytes_in_use(), 0);
}

/// Many requests at once are answered in any order.
pub fn many_requests_at_once_are_answered_in_any_order(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let count = 300_u64;
    for token in 0..count {
        let data = pattern(1 + token as usize * 7, token as u8);
        let landing = Landing::Pool(data.len() as u32);
        let header = token.to_le_bytes();
        let request = OutgoingRequest { data: data.into(), landing, ..OutgoingRequest::new(&header, token) };
        pair.client.request(connection, request).unwrap();
    }
    pair.until("all requests", |pair| pair.server_events.len() as u64 == count);
    let mut events = std::mem::take(&mut pair.server_events);
    events.reverse();
    for event in events {
        let Event::Request(mut request) = event else { panic!("{event:?}") };
        let header = request.header().to_vec();
        let data = request.take_data();
        pair.server.respond(request, OutgoingResponse { header: &header, data }).unwrap();
    }
    pair.until("all responses", |pair| pair.client_events.len() as u64 == count);
    for event in std::mem::take(&mut pair.client_events) {
        let Event::Response { token, outcome, .. } = event else { panic!("{event:?}") };
        let reply = outcome.unwrap();
        assert_eq!(&reply.header[..], token.to_le_bytes());
        assert_eq!(reply.data.to_vec(), pattern(1 + token as usize * 7, token as u8));
    }
    assert_eq!(pair.client.statistics().snapshot().requests_outstanding, 0);
    assert_eq!(pair.server.statistics().snapshot().requests_running, 0);
}

/// A server may ask its client.
pub fn a_server_may_ask_its_client(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (_, there) = pair.connect();
    let request = OutgoingRequest { landing: Landing::Pool(100), ..OutgoingRequest::new(b"who?", 9) };
    pair.server.request(there, request).unwrap();
    let Event::Request(request) = pair.client_event() else { panic!() };
    assert_eq!(request.header(), b"who?");
    let data = Sgl::from(b"me".to_vec());
    pair.client.respond(request, OutgoingResponse { header: b"", data }).unwrap();
    let Event::Response { token: 9, outcome: Ok(reply), .. } = pair.server_event() else { panic!() };
    assert_eq!(reply.data.to_vec(), b"me");
}

/// A dropped request is answered for.
pub fn a_dropped_request_is_answered_for(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    pair.client.request(connection, OutgoingRequest::new(b"x", 1)).unwrap();
    drop(pair.request());
    assert!(matches!(pair.client_event(), Event::Response { outcome: Err(Error::Unanswered), .. }));
    // The slot is good again.
    pair.echo(connection, OutgoingRequest::new(b"y", 2));
}

/// A response above its room is an error on both sides.
pub fn a_response_above_its_room_is_an_error_on_both_sides(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let request = OutgoingRequest { landing: Landing::Pool(10), ..OutgoingRequest::new(b"x", 1) };
    pair.client.request(connection, request).unwrap();
    let request = pair.request();
    let response = OutgoingResponse { header: b"", data: vec![0; 11].into() };
    assert!(matches!(pair.server.respond(request, response), Err(Error::NoRoom { length: 11, room: 10 })));
    assert!(matches!(pair.client_event(), Event::Response { outcome: Err(Error::NoRoom { .. }), .. }));
}

/// A large response to a request that is not idempotent is refused.
pub fn a_large_response_to_a_request_that_is_not_idempotent_is_refused(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let request =
        OutgoingRequest { landing: Landing::Pool(4096), idempotent: false, ..OutgoingRequest::new(b"x", 1) };
    pair.client.request(connection, request).unwrap();
    let request = pair.request();
    let response = OutgoingResponse { header: b"", data: vec![0; 4096].into() };
    assert!(matches!(pair.server.respond(request, response), Err(Error::LimitExceeded { .. })));
    assert!(matches!(pair.client_event(), Event::Response { outcome: Err(_), .. }));
}

/// Data lands in the pieces that were named.
pub fn data_lands_in_the_pieces_that_were_named(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (connection, _) = pair.connect();
    let mut landing = Sgl::new();
    for length in [1, 0, 4096, 7, 100_000] {
        landing.push(Buffer::from_vec(vec![0; length])).unwrap();
    }
    let addresses: Vec<_> = landing.pieces().iter().map(Buffer::as_ptr).collect();
    let data = pattern(landing.len(), 5);
    let request = OutgoingRequest {
        data: data.clone().into(),
        landing: Landing::Place(landing),
        ..OutgoingRequest::new(b"", 1)
    };
    let reply = pair.echo(connection, request);
    assert_eq!(reply.data.to_vec(), data);
    let landed: Vec<_> = reply.data.pieces().iter().map(Buffer::as_ptr).collect();
    assert!(landed.iter().all(|address| addresses.contains(address)));
}

/// Checksums are in force where both offer them.
pub fn checksums_are_in_force_where_both_offer_them(make: Make<'_>) {
    for (here, there) in [(true, true), (true, false), (false, true)] {
        let mut pair =
            Pair::with(make(), |client| client.crc = here, |server| server.crc = there, Default::default());
        let (connection, _) = pair.connect();
        let data = pattern(70_000, 3);
        let request = OutgoingRequest {
            data: data.clone().into(),
            landing: Landing::Pool(70_000),
            ..OutgoingRequest::new(b"sum", 1)
        };
        assert_eq!(pair.echo(connection, request).data.to_vec(), data);
    }
}
