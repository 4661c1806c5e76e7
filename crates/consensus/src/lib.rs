//! raft-rs over the write-ahead log.
