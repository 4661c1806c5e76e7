package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestEveryDurationFallsIntoTheBucketThatEndsAtOrAfterIt(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 63, 64, 65, 127, 128, 1000, time.Millisecond, time.Hour, math.MaxInt64} {
		b := bucketOf(d)
		if upperEdge(b) < d || (b > 0 && upperEdge(b-1) >= d) {
			t.Errorf("%d is in bucket %d, which ends at %d", d, b, upperEdge(b))
		}
	}
	if last := bucketOf(math.MaxInt64); last != buckets-1 {
		t.Errorf("the longest is in bucket %d of %d", last, buckets)
	}
}

func TestAQuantileIsWithinASixtyFourthOfTheTrueOne(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var h histogram
	all := make([]time.Duration, 10_000)
	for i := range all {
		all[i] = time.Duration(math.Exp(random.Float64() * 24))
		h.add(all[i])
	}
	slices.Sort(all)
	for _, q := range []float64{0.5, 0.99, 0.999, 1} {
		want := all[int(q*float64(len(all)))-1]
		if got := h.quantile(q); got < want || float64(got) > float64(want)*(1+1.0/subBuckets)+1 {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
}

func TestMergedHistogramsAreAsOneThatSawAll(t *testing.T) {
	var one, odd, even histogram
	for i := range 1000 {
		d := time.Duration(i * i)
		one.add(d)
		if i%2 == 0 {
			even.add(d)
		} else {
			odd.add(d)
		}
	}
	even.merge(&odd)
	if even != one {
		t.Error("they differ")
	}
}

func TestAnEmptyHistogramHasNoQuantile(t *testing.T) {
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("got %d", got)
	}
}
