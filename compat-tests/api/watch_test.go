package api

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	. "etched.local/compat-tests/harness"
)

func watchAll() *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}}
}

func watchKey(key string) *pb.WatchCreateRequest { return &pb.WatchCreateRequest{Key: []byte(key)} }

func TestWatchSendsLiveChangesOneRevisionAResponse(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("before", "1")
		s := c.OpenWatch()
		s.Create("created", watchAll())
		c.Put("a", "1")
		s.Next("put")
		c.Put("a", "2")
		s.Next("overwrite")
		c.Delete("a")
		s.Next("delete shows only key and revision")
		c.Put("a", "3")
		s.Next("made anew")
		if _, err := c.KV.Txn(c.Context(), then(put("x", "1"), put("b", "1"), del("a", ""), nested(then(put("m", "1"), put("c", "1"))))); err != nil {
			c.Fatal(err)
		}
		if got := Describe(s.Next("a txn is one response in order of execution").Events); got != "P:x=1 P:b=1 D:a= P:m=1 P:c=1" {
			c.Errorf("events of a txn: %s", got)
		}
		if _, err := c.KV.DeleteRange(c.Context(), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("n")}); err != nil {
			c.Fatal(err)
		}
		s.Next("a delete of a range is one response")
		lease := c.Grant(5, 600)
		if _, err := c.KV.Put(c.Context(), &pb.PutRequest{Key: []byte("leased"), Lease: lease}); err != nil {
			c.Fatal(err)
		}
		s.Next("a put shows its lease")
		if _, err := c.Lease.LeaseRevoke(c.Context(), &pb.LeaseRevokeRequest{ID: lease}); err != nil {
			c.Fatal(err)
		}
		s.Next("a revoke deletes")
		if _, err := c.KV.Txn(c.Context(), then(nested(then(put("t", "1"))), nested(then(del("t", ""))))); err != nil {
			c.Fatal(err)
		}
		s.Next("put and delete of one key in one revision")
	})
}

func TestWatchOfOneKeyARangeAndTheZeroKey(t *testing.T) {
	OnBoth(t, func(c *Case) {
		s := c.OpenWatch()
		for i, r := range []*pb.WatchCreateRequest{
			watchKey("a"), {Key: []byte("a"), RangeEnd: []byte("b")}, {Key: []byte("b"), RangeEnd: []byte{0}},
			watchAll(), {}, watchKey("\x00"), {RangeEnd: []byte{0}}, {Key: []byte("a"), RangeEnd: []byte{0, 0}},
		} {
			r.WatchId = int64(100 + i)
			s.Create(fmt.Sprint("create ", i), r)
		}
		byWatcher := map[int64][]string{}
		fence := int64(106) // sees all, so it is asked until the last write is there
		for _, key := range []string{"a", "aa", "b", "\x00", "zz", "last"} {
			c.Put(key, "1")
		}
		seen := map[int64]int{100: 1, 101: 2, 102: 3, 103: 6, 104: 1, 105: 1, fence: 6}
		for total, want := 0, 20; total < want; {
			answer := s.Take("events")
			for _, e := range answer.Events {
				byWatcher[answer.WatchId] = append(byWatcher[answer.WatchId], fmt.Sprintf("%q", e.Kv.Key))
				total++
			}
		}
		for id, n := range seen {
			if len(byWatcher[id]) != n {
				c.Errorf("watcher %d saw %v", id, byWatcher[id])
			}
			c.Note(fmt.Sprint("saw ", fence), fmt.Sprint(byWatcher[fence]))
		}
		for i := int64(100); i <= 107; i++ {
			c.Note(fmt.Sprint("watcher ", i), fmt.Sprint(byWatcher[i]))
		}
	})
}

func TestWatchIdsAreChosenLowestFirstAndNeverReused(t *testing.T) {
	OnBoth(t, func(c *Case) {
		s := c.OpenWatch()
		own := func(id int64) *pb.WatchCreateRequest {
			r := watchKey("a")
			r.WatchId = id
			return r
		}
		s.Create("0", own(0))
		s.Create("1", own(0))
		s.Create("3 by wish", own(3))
		s.Create("2", own(0))
		s.Create("4 skips the taken one", own(0))
		s.Create("negative by wish", own(-7))
		s.Create("large by wish", own(math.MaxInt64))
		duplicateId := s.Create("taken", own(3))
		if duplicateId.CancelReason != "mvcc: duplicate watch ID provided on the WatchStream" || duplicateId.WatchId != -1 {
			c.Errorf("%v", duplicateId)
		}
		s.Cancel(2)
		s.Next("cancelled 2")
		s.Create("2 is not reused", own(0))
		s.Create("2 by wish", own(2))
		s.Cancel(-7)
		s.Next("cancelled -7")
		s.Cancel(2)
		s.Next("cancelled 2 again")
		s.Cancel(4711)
		s.Send(&pb.WatchRequest{})
		s.Create("neither an unknown cancel nor an empty request is answered", own(50))
	})
}

func TestWatchThatIsRefusedLeavesTheStreamAlive(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		s := c.OpenWatch()
		for _, r := range []struct {
			name, key, end, reason string
			start                  int64
		}{
			{"end equal to key", "a", "a", "mvcc: watcher range is empty", 0},
			{"end below key", "b", "a", "mvcc: watcher range is empty", 0},
			{"start revision -1", "a", "", compacted, -1},
			{"start revision -100", "a", "", compacted, -100},
		} {
			answer := s.Create(r.name, &pb.WatchCreateRequest{Key: []byte(r.key), RangeEnd: []byte(r.end), StartRevision: r.start})
			if !answer.Created || !answer.Canceled || answer.WatchId != -1 || answer.CancelReason != r.reason {
				c.Errorf("%s: %v", r.name, answer)
			}
		}
		s.Create("lives on", watchKey("a"))
		c.Put("a", "2")
		s.Next("and sends")
	})
}

func TestWatchFromThePastSendsHistoryFirst(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fruits(c)
		for start := int64(1); start <= 13; start += 3 {
			s := c.OpenWatch()
			r := watchAll()
			r.StartRevision, r.PrevKv = start, true
			s.Create(fmt.Sprint("from ", start), r)
			s.Events(fmt.Sprint("history from ", start), 13-int(max(start, 3))+1)
			s.End()
		}
		s := c.OpenWatch()
		r := watchKey("date")
		r.StartRevision = 1
		s.Create("one key", r)
		s.Events("history of one key", 3)
		c.Put("date", "live")
		s.Events("then live", 1)
	})
}

func TestWatchFromTheFutureIsSilentUntilThen(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		s := c.OpenWatch()
		soon, later := watchKey("a"), watchKey("a")
		soon.StartRevision, later.StartRevision = 3, 6
		s.Create("next revision", soon)
		s.Create("in the future", later)
		for i := 3; i <= 5; i++ {
			c.Put("a", fmt.Sprint(i))
			if answer := s.Next(fmt.Sprint("only the first sees ", i)); answer.WatchId != 0 {
				c.Errorf("early: %v", answer)
			}
		}
		c.Put("a", "6")
		got := map[int64]bool{}
		for range 2 {
			answer := s.Take("6")
			got[answer.WatchId] = true
			c.RecordUnder(fmt.Sprint("6 at watcher ", answer.WatchId), answer)
		}
		if !got[1] {
			c.Error("the later one did not see 6")
		}
	})
}

func TestWatchBelowTheFloorIsCancelledWithTheFloor(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fruits(c)
		if _, err := c.KV.Compact(c.Context(), &pb.CompactionRequest{Revision: 8}); err != nil {
			c.Fatal(err)
		}
		s := c.OpenWatch()
		from := func(start, id int64) *pb.WatchCreateRequest {
			r := watchAll()
			r.StartRevision, r.WatchId = start, id
			return r
		}
		s.Create("below", from(7, 0))
		cancelled := s.Next("cancelled")
		if !cancelled.Canceled || cancelled.CompactRevision != 8 || cancelled.Header.Revision != 0 {
			c.Errorf("%v", cancelled)
		}
		s.Create("at 1 with an id", from(1, 9))
		s.Next("cancelled too")
		s.Create("the id stays taken", from(0, 9))
		s.Cancel(9)
		s.Next("until the client cancels it")
		s.Create("then it is free", from(0, 9))
		at := c.OpenWatch()
		at.Create("at the floor", from(8, 0))
		at.Events("from the floor on", 6)
	})
}

func TestWatchShowsThePairBefore(t *testing.T) {
	OnBoth(t, func(c *Case) {
		s := c.OpenWatch()
		r := watchAll()
		r.PrevKv = true
		s.Create("created", r)
		txn := func(r *pb.TxnRequest) {
			c.Helper()
			if _, err := c.KV.Txn(c.Context(), r); err != nil {
				c.Fatal(err)
			}
		}
		c.Put("a", "1")
		s.Next("a new key has none")
		c.Put("a", "2")
		s.Next("overwrite")
		c.Delete("a")
		s.Next("delete")
		c.Put("a", "old")
		s.Next("a key made anew has none")
		txn(then(nested(then(put("a", "new"))), nested(then(del("a", "")))))
		s.Next("put then delete in one revision")
		c.Put("a", "old")
		s.Next("again")
		txn(then(del("a", "\x00"), put("a", "new")))
		s.Next("delete then put in one revision")
		history := watchAll()
		history.PrevKv, history.StartRevision = true, 1
		past := c.OpenWatch()
		past.Create("history", history)
		past.Events("history", 9)
		if _, err := c.KV.Compact(c.Context(), &pb.CompactionRequest{Revision: 7, Physical: true}); err != nil {
			c.Fatal(err)
		}
		history.StartRevision = 7
		late := c.OpenWatch()
		late.Create("from the floor", history)
		late.Events("a compacted one is silently absent", 3)
	})
}

func TestWatchFiltersPutsOrDeletesOut(t *testing.T) {
	OnBoth(t, func(c *Case) {
		names := []string{"no put", "no delete", "neither", "unknown", "no put twice"}
		streams := map[string]*Stream{}
		for i, filters := range [][]pb.WatchCreateRequest_FilterType{
			{pb.WatchCreateRequest_NOPUT}, {pb.WatchCreateRequest_NODELETE},
			{pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE}, {7}, {pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NOPUT},
		} {
			streams[names[i]] = c.OpenWatch()
			r := watchAll()
			r.Filters, r.PrevKv = filters, true
			streams[names[i]].Create(names[i], r)
		}
		c.Put("a", "1")
		c.Delete("a")
		c.Put("b", "1")
		if _, err := c.KV.Txn(c.Context(), then(put("c", "1"), del("b", ""), put("d", "1"))); err != nil {
			c.Fatal(err)
		}
		for name, n := range map[string]int{"no put": 2, "no delete": 4, "neither": 0, "unknown": 6, "no put twice": 2} {
			var words string
			for seen := 0; seen < n; {
				answer := streams[name].Take(name)
				seen += len(answer.Events)
				words += fmt.Sprintf("%d: %s\n", answer.Header.Revision, Describe(answer.Events))
			}
			c.RecordUnder("seen by "+name, &pb.WatchResponse{CancelReason: words})
		}
		s := streams["neither"]
		s.Create("a filtered response is not sent", watchKey("x"))
	})
}

func TestWatchCatchesUpInBatchesOfAThousandRevisions(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for i := range 1500 {
			c.Put("k", fmt.Sprint(i))
		}
		s := c.OpenWatch()
		r := watchKey("k")
		r.StartRevision = 2
		s.Create("created", r)
		last := int64(1)
		for last < 1501 {
			answer := s.Take("history")
			c.Notef("a batch", "%d events, header %d", len(answer.Events), answer.Header.Revision)
			for _, event := range answer.Events {
				if event.Kv.ModRevision != last+1 {
					c.Fatalf("revision %d after %d", event.Kv.ModRevision, last)
				}
				last++
			}
		}
	})
}

func TestWatchFragmentsALargeRevisionOnRequest(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fifteen := func(fill byte) *pb.TxnRequest {
			request := &pb.TxnRequest{}
			for i := range 15 {
				request.Success = append(request.Success, put(fmt.Sprintf("big%02d", i), string(bytes.Repeat([]byte{fill}, 95_000))))
			}
			return request
		}
		large := watchAll()
		large.PrevKv = true // so one revision carries twice what a request may
		whole := c.OpenWatch()
		whole.Create("whole", large)
		cut := c.OpenWatch()
		large.Fragment = true
		cut.Create("in fragments", large)
		for _, fill := range []byte{'a', 'b'} {
			if _, err := c.KV.Txn(c.Context(), fifteen(fill)); err != nil {
				c.Fatal(err)
			}
			if answer := whole.Take("whole"); len(answer.Events) != 15 || answer.Fragment {
				c.Errorf("whole: %d events, fragment %v", len(answer.Events), answer.Fragment)
			}
			for seen := 0; seen < 15; {
				answer := cut.Take("fragment")
				seen += len(answer.Events)
				c.Notef("fragment", "%d events at %d, more %v", len(answer.Events), answer.Header.Revision, answer.Fragment)
			}
		}
	})
}

func TestWatchOfALargeHistoryIsComplete(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for i := range 40 {
			c.Put(fmt.Sprintf("big%02d", i), string(make([]byte, 90_000)))
		}
		for _, fragment := range []bool{false, true} {
			s := c.OpenWatch()
			r := watchAll()
			r.StartRevision, r.Fragment = 2, fragment
			s.Create("created", r)
			s.Events(fmt.Sprint("fragments ", fragment), 40)
		}
	})
}

func TestWatchProgressIsAnsweredOnlyWhenAllWatchersAreInSync(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		s := c.OpenWatch()
		s.Progress()
		s.Create("no watcher: silent", watchKey("a"))
		s.Progress()
		if answer := s.Next("in sync"); answer.WatchId != -1 || answer.Header.Revision != 2 || len(answer.Events) != 0 {
			c.Errorf("%v", answer)
		}
		c.Put("other", "1")
		s.Progress()
		s.Next("progress beyond other keys")
		s.Create("a second watcher", watchKey("b"))
		s.Progress()
		s.Next("one answer for both")
		next := watchKey("c")
		next.StartRevision, next.WatchId = 4, 40
		s.Create("starts with the next revision", next)
		s.Progress()
		s.Create("silent while one is in the future", watchKey("d"))
		c.Put("a", "2")
		s.Next("the store reaches it")
		s.Progress()
		s.Next("answered again")
		s.Cancel(40)
		s.Next("cancelled")
		s.Progress()
		s.Next("and again")
	})
}

func TestWatchProgressNotifyCarriesTheRevisionReached(t *testing.T) {
	OnBoth(t, func(c *Case) {
		s := c.OpenWatch()
		r := watchKey("quiet")
		r.ProgressNotify = true
		s.Create("created", r)
		c.Put("other", "1")
		c.Put("other", "2")
		for answer := s.Take("progress"); answer.Header.Revision != 3; answer = s.Take("progress") {
			if answer.WatchId != 0 || len(answer.Events) != 0 || answer.Header.Revision > 3 {
				c.Fatalf("%v", answer)
			}
		}
		s.Next("the next one")
	}, "--watch-progress-notify-interval", "300ms")
}

func TestWatchGoesOnAfterHalfCloseAndEndsWithItsCall(t *testing.T) {
	OnBoth(t, func(c *Case) {
		s := c.OpenWatch()
		s.Create("created", watchKey("a"))
		s.HalfClose()
		c.Put("a", "1")
		s.Next("after half-close")
		s.End()
		c.RecordError("cancelled by the client", s.Ended("cancel"))
	})
}

func TestWatchOfManyWatchersOnOneStreamDeliversToEach(t *testing.T) {
	OnBoth(t, func(c *Case) {
		const watchers = 300
		s := c.OpenWatch()
		for i := range watchers {
			s.Send(CreateRequest(watchKey(fmt.Sprintf("k%03d", i))))
		}
		for range watchers {
			if answer := s.Take("created"); !answer.Created {
				c.Fatalf("%v", answer)
			}
		}
		for i := range watchers {
			c.Put(fmt.Sprintf("k%03d", i), "1")
		}
		for range watchers {
			answer := s.Take("event")
			if len(answer.Events) != 1 || string(answer.Events[0].Kv.Key) != fmt.Sprintf("k%03d", answer.WatchId) {
				c.Fatalf("%v", answer)
			}
		}
		for i := range watchers {
			s.Cancel(int64(i))
		}
		for range watchers {
			if answer := s.Take("cancelled"); !answer.Canceled {
				c.Fatalf("%v", answer)
			}
		}
		s.Create("the stream lives", watchKey("x"))
	})
}

func TestWatchResumesWhereAnotherStreamStopped(t *testing.T) {
	OnBoth(t, func(c *Case) {
		next := int64(2)
		read := func(until int64) {
			s := c.OpenWatch()
			r := watchAll()
			r.StartRevision = next
			s.Create(fmt.Sprint("until ", until), r)
			for next < until {
				for _, event := range s.Take("event").Events {
					if event.Kv.ModRevision != next {
						c.Fatalf("revision %d, expected %d", event.Kv.ModRevision, next)
					}
					next++
				}
			}
			s.End()
		}
		for round := range 5 {
			for i := range 20 {
				c.Put(fmt.Sprint("k", i%7), fmt.Sprint(round, " ", i))
			}
			read(int64(12 + 20*round))
		}
		read(102)
	})
}

func TestASlowWatcherLosesNothing(t *testing.T) {
	OnBoth(t, func(c *Case) {
		const writes = 2000
		ctx, cancel := context.WithCancel(c.T.Context())
		c.Cleanup(cancel)
		stream, err := c.Watch.Watch(ctx)
		if err != nil {
			c.Fatal(err)
		}
		if err := stream.Send(CreateRequest(watchKey("k"))); err != nil {
			c.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			c.Fatal(err)
		}
		for i := range writes { // nothing is received meanwhile
			c.Put("k", fmt.Sprint(i)+string(make([]byte, 1000)))
		}
		for next := int64(2); next < 2+writes; {
			answer, err := stream.Recv()
			if err != nil {
				c.Fatal(err)
			}
			for _, event := range answer.Events {
				if event.Kv.ModRevision != next {
					c.Fatalf("revision %d, expected %d", event.Kv.ModRevision, next)
				}
				next++
			}
		}
	})
}
