//! The conformance suite on RDMA devices. `XIO_RDMA=SERVER,CLIENT` gives the addresses of the two ends; without it
//! these tests are not run (`cargo xtask test` sets it, in a virtual machine with soft-RoCE).

mod rdma_support;

conformance::suite!(rdma, rdma_support::fabric());
