//! Tests on real loopback sockets.

pub(crate) mod support;
