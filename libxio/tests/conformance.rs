//! The conformance suite on the transports that are built in, a line per rule.

use conformance::Fabric;
use libxio::transport::Faults;

conformance::suite!(sim, Fabric::sim(1, Faults::NONE));
conformance::suite!(shm, Fabric::shm());
conformance::suite!(tcp, Fabric::built_in("tcp://127.0.0.1:0/"));
