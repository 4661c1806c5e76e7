//! apply, the gRPC services, HTTP endpoints, start-up and shutdown.
