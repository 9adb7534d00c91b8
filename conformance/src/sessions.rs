//! Sessions and servers: accept, reject, join.

use crate::{Make, Pair};
use libxio::{AcceptOptions, Error, Event, RejectReason, Session};
use std::time::Duration;

/// A connection is rejected with reason and private data.
pub fn a_connection_is_rejected_with_reason_and_private_data(make: Make<'_>) {
    let mut pair = Pair::new(make());
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
}

/// Connections of one session share its name.
pub fn connections_of_one_session_share_its_name(make: Make<'_>) {
    let mut pair = Pair::new(make());
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
}

/// A silent application is rejected for.
pub fn a_silent_application_is_rejected_for(make: Make<'_>) {
    let options =
        libxio::ServerOptions { handshake_timeout: Duration::from_millis(100), ..Default::default() };
    let mut pair = Pair::with(make(), |_| {}, |_| {}, options);
    pair.client.connect(&Session::new(pair.uri.clone()), Default::default()).unwrap();
    let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
    let Event::Closed { reason: Error::Rejected { reason: RejectReason::Busy, .. }, .. } =
        pair.client_event()
    else {
        panic!()
    };
    assert!(matches!(pair.server.accept(request, AcceptOptions::new()), Err(Error::StaleHandle(_))));
}
