package main

import (
	"math/bits"
	"time"
)

// Each doubling is cut into this many buckets, so a latency is told to within 1/64 of itself.
const (
	subBits    = 6
	subBuckets = 1 << subBits
	// The bit length of the longest duration is 63; all below subBuckets have a bucket each.
	buckets = subBuckets * (64 - subBits)
)

// histogram counts durations in buckets whose width grows with them: its size is fixed, whatever it
// is given. One goroutine at a time may use it; merge joins those of several.
type histogram struct {
	counts [buckets]uint64
	total  uint64
	max    time.Duration
}

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)*subBuckets + int(v>>shift) - subBuckets
}

// upperEdge is the longest duration of a bucket.
func upperEdge(bucket int) time.Duration {
	if bucket < subBuckets {
		return time.Duration(bucket)
	}
	shift := bucket/subBuckets - 1
	return time.Duration(uint64(bucket%subBuckets+subBuckets+1)<<shift - 1)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.total++
	h.max = max(h.max, d)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// quantile is a duration that the given part of all did not exceed, at most a bucket too high.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q*float64(h.total) + 0.5)
	rank = min(max(rank, 1), h.total)
	var seen uint64
	for i, n := range h.counts {
		seen += n
		if n > 0 && seen >= rank {
			return min(upperEdge(i), h.max)
		}
	}
	return 0
}
