package ctl

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"etched.local/compat-tests/harness"
)

// etcdutl runs the real etcdutl to its end; it must succeed.
func (c *Case) etcdutl(args ...string) string { c.Helper(); return c.tool("etcdutl", args...) }

func (c *Case) tool(name string, args ...string) string {
	c.Helper()
	output, err := exec.CommandContext(c.T.Context(), harness.Binary(name), args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			output = append(output, exit.Stderr...)
		}
		c.Fatalf("%s %v: %v\n%s", name, args, err, output)
	}
	return string(output)
}

// seedEveryBucket writes what shows in a snapshot: overwritten, deleted, compacted, large, leased.
func seedEveryBucket(c *Case) {
	c.Helper()
	seed(c)
	c.Delete("date")
	c.Put("large", strings.Repeat("x", 100_000))
	if _, err := c.KV.Compact(c.Context(), &pb.CompactionRequest{Revision: 5, Physical: true}); err != nil {
		c.Fatal(err)
	}
	c.Put("date", "again")
	for i := range 600 {
		c.Put("many"+strings.Repeat("/", i%7), "value")
	}
}

func (c *Case) hashKV(step string, from pb.MaintenanceClient) *pb.HashKVResponse {
	c.Helper()
	answer, err := from.HashKV(c.Context(), &pb.HashKVRequest{})
	if err != nil {
		c.Fatal(err)
	}
	answer.Header = nil
	c.Record(step, answer)
	return answer
}

// Another server may write at any time for itself, so what counts is recorded, not the bytes.
func TestASnapshotIsRestoredByEtcdutlAndServedByEtcdWithTheSameHash(t *testing.T) {
	onBoth(t, func(c *Case) {
		seedEveryBucket(c)
		before := c.hashKV("hash", c.Maintenance)
		file := filepath.Join(c.TempDir(), "snapshot")
		c.Mask(file, "file")
		c.Run("snapshot", "save", file)
		var status struct {
			Revision int64
			TotalKey int
			Version  string
		}
		if err := json.Unmarshal([]byte(c.etcdutl("snapshot", "status", file, "-w", "json")), &status); err != nil {
			c.Fatal(err)
		}
		c.Notef("status", "%+v", status)
		data := filepath.Join(c.TempDir(), "data")
		c.etcdutl("snapshot", "restore", file, "--data-dir", data,
			"--initial-cluster", "default="+harness.AdvertisedPeer, "--initial-advertise-peer-urls", harness.AdvertisedPeer)
		restored := harness.Start(c.T, harness.Etcd, "--data-dir", data)
		conn := restored.Dial(c.T)
		after := c.hashKV("hash of the restored", pb.NewMaintenanceClient(conn))
		if before.Hash != after.Hash || before.HashRevision != after.HashRevision {
			c.Errorf("hash %v, restored %v", before, after)
		}
		answer, err := pb.NewLeaseClient(conn).LeaseTimeToLive(c.Context(), &pb.LeaseTimeToLiveRequest{ID: 0x4d2, Keys: true})
		if err != nil {
			c.Fatal(err)
		}
		c.Notef("lease", "%d s granted, keys %q", answer.GrantedTTL, answer.Keys)
	})
}

func TestASnapshotComesInPartsOf32KiBWithWhatIsLeftAndItsVersion(t *testing.T) {
	onBoth(t, func(c *Case) {
		seedEveryBucket(c)
		stream, err := c.Maintenance.Snapshot(c.Context(), &pb.SnapshotRequest{})
		if err != nil {
			c.Fatal(err)
		}
		var parts []*pb.SnapshotResponse
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				c.Fatal(err)
			}
			parts = append(parts, part)
		}
		total := int(parts[0].RemainingBytes) + len(parts[0].Blob)
		for i, part := range parts[:len(parts)-1] {
			total -= len(part.Blob)
			last := i == len(parts)-2
			if part.RemainingBytes != uint64(total) || (len(part.Blob) != 32<<10 && !last) {
				c.Errorf("part %d has %d bytes, %d remain", i, len(part.Blob), part.RemainingBytes)
			}
			if part.Version != "3.7.0" || part.Header != nil {
				c.Errorf("part %d: version %q, header %v", i, part.Version, part.Header)
			}
		}
		end := parts[len(parts)-1]
		c.Notef("end", "%d bytes, %d remain, version %s; database of whole pages: %t",
			len(end.Blob), end.RemainingBytes, end.Version, total == 0)
	})
}

func TestASnapshotIsOfOneRevisionWhileWritesGoOn(t *testing.T) {
	onBoth(t, func(c *Case) {
		seedEveryBucket(c)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					// Both keys in one revision: a snapshot must have both or none of it.
					put := func(key string) *pb.RequestOp {
						return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
					}
					if _, err := c.KV.Txn(c.T.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{put("left"), put("right")}}); err != nil {
						return
					}
				}
			}
		}()
		for range 3 {
			acknowledged, err := c.KV.Range(c.Context(), &pb.RangeRequest{Key: []byte("left")})
			if err != nil {
				c.Fatal(err)
			}
			c.snapshotHolds(acknowledged.Header.Revision)
		}
		close(stop)
		<-stopped
	})
}

// snapshotHolds saves a snapshot, serves it by etcd, and checks that it has everything up to a revision.
func (c *Case) snapshotHolds(revision int64) {
	c.Helper()
	folder := c.TempDir()
	file, data := filepath.Join(folder, "snapshot"), filepath.Join(folder, "data")
	c.Must("snapshot", "save", file)
	c.etcdutl("snapshot", "restore", file, "--data-dir", data,
		"--initial-cluster", "default="+harness.AdvertisedPeer, "--initial-advertise-peer-urls", harness.AdvertisedPeer)
	restored := harness.Start(c.T, harness.Etcd, "--data-dir", data)
	defer restored.Kill()
	answer, err := pb.NewKVClient(restored.Dial(c.T)).Range(c.Context(), &pb.RangeRequest{Key: []byte("left"), RangeEnd: []byte("righu")})
	if err != nil {
		c.Fatal(err)
	}
	if answer.Header.Revision < revision {
		c.Errorf("the snapshot ends at revision %d, %d was acknowledged before", answer.Header.Revision, revision)
	}
	pairs := map[string]int64{}
	for _, kv := range answer.Kvs {
		pairs[string(kv.Key)] = kv.ModRevision
	}
	if pairs["left"] != pairs["right"] {
		c.Errorf("half of a revision: %v", pairs)
	}
}
