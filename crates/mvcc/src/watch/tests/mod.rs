//! Specs of the hub.
