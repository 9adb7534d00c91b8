//! Calls that make no sense.

use crate::{Make, Pair, pattern};
use libxio::{
    Access, Error, Event, Landing, OutgoingOneWay, OutgoingRequest, OutgoingResponse, Receipt, Region,
    SendOptions, Sgl,
};
use std::time::Duration;

/// Handles of another context are refused.
pub fn handles_of_another_context_are_refused(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, there) = pair.connect();
    assert!(matches!(pair.server.close(here), Err(Error::StaleHandle(_))));
    assert!(matches!(pair.client.close(there), Err(Error::StaleHandle(_))));
    // A request that is taken to the wrong one is dropped there, which its own context hears of.
    for token in [1, 2] {
        pair.client.request(here, OutgoingRequest::new(b"x", token)).unwrap();
        let request = pair.request();
        let refused = match token {
            1 => pair.client.respond(request, OutgoingResponse::default()),
            _ => pair.client.abandon(request),
        };
        assert!(matches!(refused, Err(Error::StaleHandle(_))), "{refused:?}");
        assert!(matches!(pair.client_event(), Event::Response { outcome: Err(Error::Unanswered), .. }));
    }
    // What the client's own next request leaves behind is told to the client.
    pair.server.request(there, OutgoingRequest::new(b"y", 3)).unwrap();
    let Event::Request(request) = pair.client_event() else { panic!() };
    drop(request);
    assert!(matches!(pair.server_event(), Event::Response { outcome: Err(Error::Unanswered), .. }));
}

/// Every call on a connection that has ended says so, and does nothing.
pub fn calls_on_an_ended_connection_are_refused(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, there) = pair.connect();
    let region = Region::allocate(4096, false).unwrap();
    let exposed = pair.client.expose(here, &region, 0, 4096, Access::READ_WRITE).unwrap();
    let id = pair.client.request(here, OutgoingRequest::new(b"held", 1)).unwrap();
    pair.client.send(here, OutgoingOneWay::default()).unwrap();
    let mut request = pair.request();
    let Event::OneWay(message) = pair.server_event() else { panic!() };
    pair.client.abort(here).unwrap();
    pair.until("the end of both", |pair| pair.server_events.len() == 1 && pair.client_events.len() == 2);
    let none = SendOptions::default();
    let client = &mut pair.client;
    let refused = [
        client.request(here, OutgoingRequest::new(b"", 0)).map(|_| ()),
        client.send(here, OutgoingOneWay::default()),
        client.cancel(here, id),
        client.close(here),
        client.abort(here),
        client.expose(here, &region, 0, 1, Access::READ).map(|_| ()),
        client.revoke(here, &exposed),
        client.remote_read(here, &exposed, 0, Landing::Pool(1), 0, none).map(|_| ()),
        client.remote_write(here, &exposed, 0, vec![1].into(), 0, none).map(|_| ()),
        client.unsent_bytes(here).map(|_| ()),
        client.free_slots(here).map(|_| ()),
        client.free_one_way(here).map(|_| ()),
        client.peer_limits(here).map(|_| ()),
        client.peer(here).map(|_| ()),
        pair.server.give_receipt(&mut request, Receipt::Accepted),
        pair.server.respond(request, OutgoingResponse::default()),
        pair.server.release(message, Receipt::Accepted),
        pair.server.close(there),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        // The request asked for no receipt.
        let expected = matches!(refused, Err(Error::StaleHandle(_) | Error::Unsupported(_)));
        assert!(expected, "call {number}: {refused:?}");
    }
    pair.assert_nothing_left();
}

/// Messages go to the context they came from.
pub fn messages_of_another_context_are_refused(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, _) = pair.connect();
    pair.client.request(here, OutgoingRequest::new(b"", 1)).unwrap();
    pair.client.send(here, OutgoingOneWay::default()).unwrap();
    let request = pair.request();
    let Event::OneWay(message) = pair.server_event() else { panic!() };
    let wrong = pair.client.respond(request, OutgoingResponse::default());
    assert!(matches!(wrong, Err(Error::StaleHandle(_))), "{wrong:?}");
    let wrong = pair.client.release(message, Receipt::Accepted);
    assert!(matches!(wrong, Err(Error::StaleHandle(_))), "{wrong:?}");
    pair.client.abort(here).unwrap();
    pair.until("the end", |pair| {
        pair.server_events.iter().any(|event| matches!(event, Event::Closed { .. }))
    });
    pair.assert_nothing_left();
}

/// Sizes above limits are refused before anything is sent, and take nothing.
pub fn sizes_above_limits_are_refused(make: Make<'_>) {
    let small = |options: &mut libxio::ContextOptions| {
        options.limits.header_bytes_max = 100;
        options.limits.data_bytes_max = 1000;
    };
    let mut pair = Pair::with(make(), small, small, Default::default());
    let (here, there) = pair.connect();
    let region = Region::allocate(8192, false).unwrap();
    let exposed = pair.server.expose(there, &region, 0, 8192, Access::READ_WRITE).unwrap();
    let none = SendOptions::default();
    let (header, data) = ([0; 101], || Sgl::from(vec![0; 1001]));
    let client = &mut pair.client;
    let refused = [
        client.request(here, OutgoingRequest::new(&header, 0)).map(|_| ()),
        client.request(here, OutgoingRequest { data: data(), ..OutgoingRequest::new(b"", 0) }).map(|_| ()),
        client
            .request(here, OutgoingRequest { landing: Landing::Pool(1001), ..OutgoingRequest::new(b"", 0) })
            .map(|_| ()),
        client.send(here, OutgoingOneWay { header: &header, ..Default::default() }),
        client.send(here, OutgoingOneWay { data: data(), ..Default::default() }),
        client.remote_write(here, &exposed, 0, data(), 0, none).map(|_| ()),
        client.remote_read(here, &exposed, 0, Landing::Pool(1001), 0, none).map(|_| ()),
        pair.server.expose(there, &region, 1, 8192, Access::READ).map(|_| ()),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        assert!(matches!(refused, Err(Error::LimitExceeded { .. })), "call {number}: {refused:?}");
    }
    let timed = SendOptions { timeout: Some(Duration::from_secs(1)), ..none };
    let refused = pair.client.send(here, OutgoingOneWay { options: timed, ..Default::default() });
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    let (frames, slots) = (pair.client.statistics().snapshot().frames_sent, pair.client.free_slots(here));
    assert_eq!((frames, slots.unwrap()), (0, u32::from(libxio::SLOTS_DEFAULT)));
    pair.client.request(here, OutgoingRequest::new(b"", 1)).unwrap();
    let request = pair.request();
    let long = pair.server.respond(request, OutgoingResponse { header: &header, ..Default::default() });
    assert!(matches!(long, Err(Error::LimitExceeded { .. })), "{long:?}");
    assert!(matches!(pair.client_event(), Event::Response { outcome: Err(_), .. }));
    pair.finish(here);
}

/// Things may be dropped in any order: messages after their connection, memory after its context.
pub fn things_are_dropped_in_any_order(make: Make<'_>) {
    for order in 0..6 {
        let mut pair = Pair::new(make());
        let (here, _) = pair.connect();
        let data = pair.client.pool().take_list(100_000).unwrap();
        let landing = Landing::Place(pair.client.pool().take_list(10).unwrap());
        let request = OutgoingRequest { data, landing, ..OutgoingRequest::new(b"", 1) };
        pair.client.request(here, request).unwrap();
        let data = vec![1; 5000].into();
        pair.client.send(here, OutgoingOneWay { data, ..Default::default() }).unwrap();
        let request = pair.request();
        let Event::OneWay(message) = pair.server_event() else { panic!() };
        let Pair { client, server, .. } = pair;
        let (client_pool, server_pool) = (client.pool().clone(), server.pool().clone());
        let mut things: Vec<Box<dyn std::any::Any>> =
            vec![Box::new(client), Box::new(server), Box::new(request), Box::new(message)];
        // Six orders that put each of them first and last at least once.
        things.rotate_left(order % 4);
        if order > 2 {
            things.swap(0, 2);
        }
        drop(things);
        assert_eq!((client_pool.bytes_in_use(), server_pool.bytes_in_use()), (0, 0), "order {order}");
    }
}

/// When its pool is used up, a receiver waits for its application, and a requester's response is an error.
pub fn an_exhausted_pool_is_waited_for_or_told(make: Make<'_>) {
    let small = |options: &mut libxio::ContextOptions| options.pool.bytes_max = 128 << 10;
    let mut pair = Pair::with(make(), small, small, Default::default());
    let (here, _) = pair.connect();
    for token in 0..4 {
        let data = pattern(64 << 10, token as u8).into();
        pair.client.request(here, OutgoingRequest { data, ..OutgoingRequest::new(b"", token) }).unwrap();
    }
    pair.settle();
    assert_eq!(pair.server_events.len(), 2, "as many as the pool holds");
    assert!(pair.server.statistics().snapshot().pool_stalls > 0);
    for token in 0..4 {
        let request = pair.request();
        assert!(request.data().to_vec() == pattern(64 << 10, token as u8));
        pair.server.respond(request, OutgoingResponse::default()).unwrap();
    }
    pair.until("all responses", |pair| pair.client_events.len() == 4);
    pair.client_events.clear();
    let hog =
        pair.client.pool().take(100 << 10).unwrap_or_else(|_| pair.client.pool().take(64 << 10).unwrap());
    let hog_too = pair.client.pool().take(64 << 10);
    let request = OutgoingRequest { landing: Landing::Pool(64 << 10), ..OutgoingRequest::new(b"", 9) };
    pair.client.request(here, request).unwrap();
    let request = pair.request();
    let data = vec![1; 64 << 10].into();
    pair.server.respond(request, OutgoingResponse { header: b"", data }).unwrap();
    let Event::Response { outcome: Err(Error::PoolExhausted { .. }), .. } = pair.client_event() else {
        panic!()
    };
    drop((hog, hog_too));
    pair.finish(here);
}

/// A panic in the application's handler, or in a closure posted to the context, leaves the context usable.
pub fn a_handler_may_panic(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, _) = pair.connect();
    pair.client.request(here, OutgoingRequest::new(b"bad", 1)).unwrap();
    pair.until("the request", |pair| !pair.server_events.is_empty());
    let Event::Request(request) = pair.server_events.remove(0) else { panic!() };
    let handle = pair.server.handle();
    handle.post_message(1, Box::new(())).unwrap();
    let mut held = Some(request);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pair.server.run(|_, event| {
            let _request = held.take();
            panic!("the test's own panic, at {event:?}");
        })
    }));
    assert!(panicked.is_err());
    assert!(matches!(pair.client_event(), Event::Response { outcome: Err(Error::Unanswered), .. }));
    handle.post(|_| panic!("the test's own panic, in a closure")).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.step()));
    assert!(panicked.is_err());
    pair.echo(here, OutgoingRequest::new(b"good", 2));
    pair.finish(here);
}
