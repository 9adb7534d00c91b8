//! Sessions and servers: accept, reject, join, hand over, redirect.

use crate::{Fabric, Make, Pair};
use libxio::{
    AcceptOptions, ConnectionOptions, Context, Error, Event, OutgoingRequest, OutgoingResponse, RejectReason,
    ServerOptions, Session, Uri,
};
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
        libxio::ServerOptions { handshake_timeout: Duration::from_millis(500), ..Default::default() };
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
/// Connections that are begun while the first one is being set up wait for it, and join.
pub fn connections_wait_for_the_first_one(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let session = Session::new(pair.uri.clone());
    let begun: Vec<_> = (0..4).map(|_| pair.client.connect(&session, Default::default()).unwrap()).collect();
    let mut names = Vec::new();
    for _ in 0..4 {
        let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
        names.push(request.session());
        pair.server.accept(request, AcceptOptions::new()).unwrap();
    }
    pair.until("all of them", |pair| pair.client_events.len() == 4);
    assert!(names.iter().all(|name| *name == names[0]) && session.id() == Some(names[0]));
    for event in pair.client_events.drain(..) {
        let Event::Connected { connection, .. } = event else { panic!("{event:?}") };
        assert!(begun.contains(&connection));
    }
    for connection in begun {
        pair.client.abort(connection).unwrap();
    }
    pair.until("the ends", |pair| pair.server_events.len() == 4);
    assert_eq!(session.id(), None, "the session is over with its last connection");
    pair.assert_nothing_left();
}

/// When the first connection fails, one that waited is the first.
pub fn a_connection_that_waited_may_be_the_first(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let session = Session::new(pair.uri.clone());
    let begun = [(); 3].map(|()| pair.client.connect(&session, Default::default()).unwrap());
    let Event::ConnectionRequest(first) = pair.server_event() else { panic!() };
    pair.client.abort(begun[1]).unwrap();
    assert!(matches!(pair.client_event(), Event::Closed { connection, .. } if connection == begun[1]));
    pair.server.reject(first, RejectReason::Busy, b"").unwrap();
    assert!(matches!(pair.client_event(), Event::Closed { connection, .. } if connection == begun[0]));
    let Event::ConnectionRequest(second) = pair.server_event() else { panic!() };
    pair.server.accept(second, AcceptOptions::new()).unwrap();
    assert!(matches!(pair.client_event(), Event::Connected { connection, .. } if connection == begun[2]));
    pair.finish(begun[2]);
}

/// A new connection can be given to another context, with everything that belongs to it.
pub fn a_new_connection_can_be_handed_over(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let mut other = Context::new(pair.fabric.context_options()).unwrap();
    let session = Session::new(pair.uri.with_resource("/other"));
    let options = ConnectionOptions { private_data: b"mine".to_vec(), ..Default::default() };
    let here = pair.client.connect(&session, options).unwrap();
    let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
    pair.server.hand_over(request, &other.handle()).unwrap();
    let mut served = 0;
    pair.until("an answer of the other context", |pair| {
        other.wait(Some(Duration::ZERO)).unwrap();
        while let Some(event) = other.next_event() {
            match event {
                Event::ConnectionRequest(request) => {
                    assert_eq!((request.resource(), request.private_data()), ("/other", &b"mine"[..]));
                    other.accept(request, AcceptOptions::new()).unwrap();
                }
                Event::Request(request) => {
                    served += 1;
                    other.respond(request, OutgoingResponse::default()).unwrap();
                }
                event => panic!("{event:?}"),
            }
        }
        if let Some(Event::Connected { .. }) = pair.client_events.last() {
            pair.client_events.clear();
            pair.client.request(here, OutgoingRequest::new(b"", 1)).unwrap();
        }
        matches!(pair.client_events.last(), Some(Event::Response { .. }))
    });
    assert_eq!(served, 1);
    // A request for a connection belongs to the context that it waits in.
    let again = pair.client.connect(&session, ConnectionOptions::default()).unwrap();
    let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
    let wrong = other.accept(request, AcceptOptions::new());
    assert!(matches!(wrong, Err(Error::StaleHandle(_))), "{wrong:?}");
    pair.client.abort(again).unwrap();
    pair.client.abort(here).unwrap();
}

/// A client goes where it is sent, and its session stays there.
pub fn a_client_follows_a_redirect(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let elsewhere = pair.server.listen(&pair.fabric.listen_other, Default::default()).unwrap();
    let elsewhere = pair.server.local_uri(elsewhere).unwrap().with_resource("/new");
    let session = Session::new(pair.uri.with_resource("/old"));
    let here = pair.client.connect(&session, Default::default()).unwrap();
    let joining = pair.client.connect(&session, Default::default()).unwrap();
    let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
    assert_eq!(request.resource(), "/old");
    pair.server.redirect(request, &elsewhere, b"").unwrap();
    let mut names = Vec::new();
    for expected in [here, joining] {
        let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
        assert_eq!(request.resource(), "/new");
        names.push(request.session());
        pair.server.accept(request, AcceptOptions::new()).unwrap();
        let Event::Connected { connection, .. } = pair.client_event() else { panic!() };
        assert_eq!(connection, expected);
    }
    assert_eq!(names[0], names[1]);
    assert_eq!((session.address(), session.uri().resource()), (elsewhere.clone(), "/old"));
    assert_eq!(pair.client.statistics().snapshot().redirects_followed, 1);
    // A session that is under way is not moved.
    let third = pair.client.connect(&session, Default::default()).unwrap();
    let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
    pair.server.redirect(request, &pair.uri.clone(), b"why").unwrap();
    let Event::Closed { connection, reason: Error::Rejected { reason, private_data, .. } } =
        pair.client_event()
    else {
        panic!()
    };
    assert_eq!((connection, reason), (third, RejectReason::Redirected));
    assert_eq!(private_data, b"why");
    pair.echo(here, OutgoingRequest::new(b"still here", 1));
    pair.client.abort(joining).unwrap();
    pair.until("its end", |pair| !pair.server_events.is_empty());
    pair.client_events.clear();
    pair.server_events.clear();
    pair.finish(here);
}

/// Servers that send a client around in circles are found out.
pub fn a_client_is_not_sent_around_for_ever(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let session = Session::new(pair.uri.clone());
    pair.client.connect(&session, Default::default()).unwrap();
    let mut redirects = 0;
    pair.until("the end", |pair| {
        for event in std::mem::take(&mut pair.server_events) {
            let Event::ConnectionRequest(request) = event else { panic!("{event:?}") };
            pair.server.redirect(request, &pair.uri.clone(), b"").unwrap();
            redirects += 1;
        }
        !pair.client_events.is_empty()
    });
    assert_eq!(redirects, 5);
    let Event::Closed { reason: Error::Rejected { reason, .. }, .. } = pair.client_event() else { panic!() };
    assert_eq!(reason, RejectReason::Redirected);
    let nowhere = Uri::new("nonsense", "nowhere", None, "/");
    pair.client.connect(&session, Default::default()).unwrap();
    let Event::ConnectionRequest(request) = pair.server_event() else { panic!() };
    pair.server.redirect(request, &nowhere, b"").unwrap();
    let Event::Closed { reason: Error::UnknownTransport(_), .. } = pair.client_event() else { panic!() };
    pair.assert_nothing_left();
}

/// Threads that share a session have a connection each, which are spread over the server's workers. (Not on virtual
/// time, which one thread moves.)
pub fn threads_share_a_session(make: Make<'_>) {
    const THREADS: usize = 4;
    let fabric = make();
    if fabric.network.is_some() {
        return;
    }
    let serve = |context: &mut Context, event: Event, accepted: &mut usize| match event {
        Event::ConnectionRequest(request) => {
            *accepted += 1;
            context.accept(request, AcceptOptions::new()).unwrap();
        }
        Event::Request(request) => {
            let header = request.header().to_vec();
            let response = OutgoingResponse { header: &header, ..Default::default() };
            context.respond(request, response).unwrap();
        }
        Event::Closed { .. } => {}
        other => panic!("{other:?}"),
    };
    let mut workers: Vec<_> = (0..2).map(|_| Context::new(fabric.context_options()).unwrap()).collect();
    let handles: Vec<_> = workers.iter().map(Context::handle).collect();
    let mut acceptor = Context::new(fabric.context_options()).unwrap();
    let options = ServerOptions { workers: handles.clone(), ..Default::default() };
    let listening = acceptor.listen(&fabric.listen, options).unwrap();
    let session = Session::new(acceptor.local_uri(listening).unwrap());
    let stop = acceptor.handle();
    let run_worker = |context: &mut Context| {
        let mut accepted = 0;
        context.run(|context, event| serve(context, event, &mut accepted)).unwrap();
        accepted
    };
    let barrier = std::sync::Barrier::new(THREADS);
    let accepted: Vec<usize> = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| acceptor.run(|_, event| panic!("{event:?}")).unwrap());
        let serving: Vec<_> =
            workers.iter_mut().map(|context| scope.spawn(move || run_worker(context))).collect();
        let clients: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| client_thread(&fabric, &session, &barrier))).collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        handles.iter().for_each(libxio::ContextHandle::stop);
        stop.stop();
        accepting.join().unwrap();
        serving.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(accepted, [2, 2]);
}

/// Connects, asks a hundred times, and closes when all others are done.
fn client_thread(fabric: &Fabric, session: &Session, barrier: &std::sync::Barrier) {
    let mut context = Context::new(fabric.context_options()).unwrap();
    let connection = context.connect(session, ConnectionOptions::default()).unwrap();
    let mut answered = 0_u32;
    let mut closing = false;
    loop {
        assert!(context.wait(Some(Duration::from_secs(20))).unwrap() > 0, "nothing happens");
        while let Some(event) = context.next_event() {
            match event {
                Event::Connected { .. } => {}
                Event::Response { outcome, .. } => {
                    assert_eq!(outcome.unwrap().header[..], answered.to_le_bytes());
                    answered += 1;
                }
                Event::Closed { .. } if closing => return,
                other => panic!("{other:?}"),
            }
            if answered < 100 {
                context.request(connection, OutgoingRequest::new(&answered.to_le_bytes(), 1)).unwrap();
            } else {
                barrier.wait();
                closing = true;
                context.close(connection).unwrap();
            }
        }
    }
}
