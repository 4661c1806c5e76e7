package descriptors

import (
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	// Each registers the descriptors that etcd is built with.
	_ "go.etcd.io/etcd/api/v3/authpb"
	_ "go.etcd.io/etcd/api/v3/etcdserverpb"
	_ "go.etcd.io/etcd/api/v3/membershippb"
	_ "go.etcd.io/etcd/api/v3/mvccpb"
	_ "go.etcd.io/etcd/api/v3/versionpb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/snap/snappb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	_ "go.etcd.io/etcd/server/v3/lease/leasepb"
	_ "go.etcd.io/etcd/server/v3/storage/wal/walpb"
	_ "go.etcd.io/raft/v3/raftpb"
)

// What `cargo codegen` compiled from proto/; a test of xtask holds that it is not stale.
const ours = "../../crates/proto/src/generated/descriptors.binpb"

// versionpb has no counterpart: it declares options that annotate other files with the release in
// which a thing appeared. Nothing of it is ever sent or stored.
const optionsOnly = "versionpb"

func etched(t *testing.T) *protoregistry.Files {
	t.Helper()
	bytes, err := os.ReadFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(bytes, set); err != nil {
		t.Fatalf("%s: %v", ours, err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatalf("%s: %v", ours, err)
	}
	return files
}

func fromEtcd(file protoreflect.FileDescriptor) bool {
	options, _ := file.Options().(*descriptorpb.FileOptions)
	return strings.HasPrefix(options.GetGoPackage(), "go.etcd.io/")
}

func everything(protoreflect.FileDescriptor) bool { return true }

func TestPackagesAreThoseOfEtcd(t *testing.T) {
	upstream := Packages(protoregistry.GlobalFiles, fromEtcd)
	upstream = slices.DeleteFunc(upstream, func(name string) bool { return name == optionsOnly })
	if mine := Packages(etched(t), everything); !slices.Equal(mine, upstream) {
		t.Errorf("packages: etched has %q, etcd has %q", mine, upstream)
	}
}

func TestDescriptorsAreThoseOfEtcd(t *testing.T) {
	files := etched(t)
	for _, name := range Packages(files, everything) {
		t.Run(name, func(t *testing.T) {
			mine := Describe(files, name)
			upstream := Describe(protoregistry.GlobalFiles, name)
			report(t, "only in etched", mine, upstream)
			report(t, "only in etcd", upstream, mine)
			t.Logf("%d lines compared", len(upstream))
		})
	}
}

func TestThePackageLeftOutHoldsNothingThatTravels(t *testing.T) {
	lines := Describe(protoregistry.GlobalFiles, optionsOnly)
	if len(lines) == 0 {
		t.Fatalf("%s is not linked in", optionsOnly)
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "extension ") {
			t.Errorf("%s now holds %q", optionsOnly, line)
		}
	}
}

func report(t *testing.T, where string, these, those []string) {
	t.Helper()
	for _, line := range these {
		if !slices.Contains(those, line) {
			t.Errorf("%s: %s", where, line)
		}
	}
}
