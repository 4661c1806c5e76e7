//! etcd's write-ahead log: records, segments, repair, over a disk seam.
