//! What every transport has to do, a test per rule, each run on all of them.

mod support;

use libxio::{
    AcceptOptions, Buffer, Error, Event, Landing, OutgoingRequest, OutgoingResponse, RejectReason, Session,
    Sgl,
};
use std::time::Duration;
use support::{KINDS, Kind, Pair};

fn on_all(test: impl Fn(Kind)) {
    for kind in KINDS {
        println!("on {kind:?}");
        test(kind);
    }
}

fn pattern(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(salt)).collect()
}

#[test]
fn a_request_comes_back_with_its_header_and_data() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
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
    });
}

#[test]
fn many_requests_at_once_are_answered_in_any_order() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
        let (connection, _) = pair.connect();
        let count = 300_u64;
        for token in 0..count {
            let data = pattern(1 + token as usize * 7, token as u8);
            let landing = Landing::Pool(data.len() as u32);
            let header = token.to_le_bytes();
            let request =
                OutgoingRequest { data: data.into(), landing, ..OutgoingRequest::new(&header, token) };
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
    });
}

#[test]
fn a_server_may_ask_its_client() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
        let (_, there) = pair.connect();
        let request = OutgoingRequest { landing: Landing::Pool(100), ..OutgoingRequest::new(b"who?", 9) };
        pair.server.request(there, request).unwrap();
        let Event::Request(request) = pair.client_event() else { panic!() };
        assert_eq!(request.header(), b"who?");
        let data = Sgl::from(b"me".to_vec());
        pair.client.respond(request, OutgoingResponse { header: b"", data }).unwrap();
        let Event::Response { token: 9, outcome: Ok(reply), .. } = pair.server_event() else { panic!() };
        assert_eq!(reply.data.to_vec(), b"me");
    });
}

#[test]
fn a_connection_is_rejected_with_reason_and_private_data() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
        let session = Session::new(pair.uri.with_resource("/nowhere"));
        pair.client.connect(&session, Default::default()).unwrap();
        let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
        assert_eq!(request.resource(), "/nowhere");
        pair.server.reject(request, RejectReason::NoResource, b"try /somewhere").unwrap();
        let Event::Closed { reason: Error::Rejected { reason, private_data, .. }, .. } = pair.client_event()
        else {
            panic!()
        };
        assert_eq!((reason, &private_data[..]), (RejectReason::NoResource, &b"try /somewhere"[..]));
        assert_eq!(pair.client.statistics().snapshot().connections, 0);
    });
}

#[test]
fn connections_of_one_session_share_its_name() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
        let session = Session::new(pair.uri.clone());
        let mut names = Vec::new();
        for _ in 0..2 {
            pair.client.connect(&session, Default::default()).unwrap();
            let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
            names.push(request.session());
            pair.server.accept(request, AcceptOptions::new()).unwrap();
            assert!(matches!(pair.client_event(), Event::Connected { .. }));
        }
        assert_eq!(names[0], names[1]);
        assert_eq!(session.id(), Some(names[0]));
        let other = Session::new(pair.uri.clone());
        pair.client.connect(&other, Default::default()).unwrap();
        let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
        assert_ne!(request.session(), names[0]);
    });
}

#[test]
fn a_dropped_request_is_answered_for() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
        let (connection, _) = pair.connect();
        pair.client.request(connection, OutgoingRequest::new(b"x", 1)).unwrap();
        drop(pair.request());
        assert!(matches!(pair.client_event(), Event::Response { outcome: Err(Error::Unanswered), .. }));
        // The slot is good again.
        pair.echo(connection, OutgoingRequest::new(b"y", 2));
    });
}

#[test]
fn a_response_above_its_room_is_an_error_on_both_sides() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
        let (connection, _) = pair.connect();
        let request = OutgoingRequest { landing: Landing::Pool(10), ..OutgoingRequest::new(b"x", 1) };
        pair.client.request(connection, request).unwrap();
        let request = pair.request();
        let response = OutgoingResponse { header: b"", data: vec![0; 11].into() };
        assert!(matches!(
            pair.server.respond(request, response),
            Err(Error::NoRoom { length: 11, room: 10 })
        ));
        assert!(matches!(pair.client_event(), Event::Response { outcome: Err(Error::NoRoom { .. }), .. }));
    });
}

#[test]
fn a_large_response_to_a_request_that_is_not_idempotent_is_refused() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
        let (connection, _) = pair.connect();
        let request = OutgoingRequest {
            landing: Landing::Pool(4096),
            idempotent: false,
            ..OutgoingRequest::new(b"x", 1)
        };
        pair.client.request(connection, request).unwrap();
        let request = pair.request();
        let response = OutgoingResponse { header: b"", data: vec![0; 4096].into() };
        assert!(matches!(pair.server.respond(request, response), Err(Error::LimitExceeded { .. })));
        assert!(matches!(pair.client_event(), Event::Response { outcome: Err(_), .. }));
    });
}

#[test]
fn slots_and_sizes_are_limited() {
    on_all(|kind| {
        let mut pair = Pair::with(kind, |_| {}, |server| server.limits.peer_slots = 3, Default::default());
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
    });
}

#[test]
fn a_receiver_that_does_not_answer_stops_its_sender_by_bytes() {
    on_all(|kind| {
        let window = 1 << 20;
        let mut pair = Pair::with(
            kind,
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
    });
}

#[test]
fn a_close_reaches_the_other_side_after_what_was_sent_before() {
    on_all(|kind| {
        for client_first in [true, false] {
            let mut pair = Pair::new(kind);
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
    });
}

#[test]
fn an_abort_ends_every_request_with_an_error() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
        let (here, _) = pair.connect();
        for token in 0..5 {
            pair.client.request(here, OutgoingRequest::new(b"x", token)).unwrap();
        }
        let held = pair.request();
        pair.client.abort(here).unwrap();
        let mut tokens = Vec::new();
        for _ in 0..5 {
            let Event::Response { token, outcome: Err(Error::ClosedLocally), .. } = pair.client_event()
            else {
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
    });
}

#[test]
fn checksums_are_in_force_where_both_offer_them() {
    on_all(|kind| {
        for (here, there) in [(true, true), (true, false), (false, true)] {
            let mut pair =
                Pair::with(kind, |client| client.crc = here, |server| server.crc = there, Default::default());
            let (connection, _) = pair.connect();
            let data = pattern(70_000, 3);
            let request = OutgoingRequest {
                data: data.clone().into(),
                landing: Landing::Pool(70_000),
                ..OutgoingRequest::new(b"sum", 1)
            };
            assert_eq!(pair.echo(connection, request).data.to_vec(), data);
        }
    });
}

#[test]
fn data_lands_in_the_pieces_that_were_named() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
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
    });
}

#[test]
fn a_silent_application_is_rejected_for() {
    on_all(|kind| {
        let options =
            libxio::ServerOptions { handshake_timeout: Duration::from_millis(100), ..Default::default() };
        let mut pair = Pair::with(kind, |_| {}, |_| {}, options);
        pair.client.connect(&Session::new(pair.uri.clone()), Default::default()).unwrap();
        let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
        let Event::Closed { reason: Error::Rejected { reason: RejectReason::Busy, .. }, .. } =
            pair.client_event()
        else {
            panic!()
        };
        assert!(matches!(pair.server.accept(request, AcceptOptions::new()), Err(Error::StaleHandle(_))));
    });
}

#[test]
fn handles_of_another_context_are_refused() {
    on_all(|kind| {
        let mut pair = Pair::new(kind);
        let (here, there) = pair.connect();
        assert!(matches!(pair.server.close(here), Err(Error::StaleHandle(_))));
        assert!(matches!(pair.client.close(there), Err(Error::StaleHandle(_))));
    });
}
