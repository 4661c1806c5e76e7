package api

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	. "etched.local/compat-tests/harness"
)

const (
	validate    = pb.DowngradeRequest_VALIDATE
	enable      = pb.DowngradeRequest_ENABLE
	cancel      = pb.DowngradeRequest_CANCEL
	wrongFormat = "etcdserver: wrong downgrade target version format"
	wrongTarget = "etcdserver: invalid downgrade target version"
	inProgress  = "etcdserver: cluster has a downgrade job in progress"
)

func downgrade(c *Case, step string, action pb.DowngradeRequest_DowngradeAction, version string) {
	c.Helper()
	Ask(c, step, c.Maintenance.Downgrade, &pb.DowngradeRequest{Action: action, Version: version})
}

// agreed waits for the version of the cluster and of what is stored: the leader looks every few seconds.
func agreed(c *Case, version string) {
	c.Helper()
	c.Eventually("cluster version "+version, func() bool {
		s, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
		_, body := request(c, "GET", "/version")
		return err == nil && s.StorageVersion == version && strings.Contains(body, `"etcdcluster":"`+version)
	})
}

// shown records where a downgrade is to be seen.
func shown(c *Case, when string) {
	c.Helper()
	Ask(c, "status "+when, c.Maintenance.Status, &pb.StatusRequest{})
	_, body := request(c, "GET", "/version")
	c.Note("version "+when, body)
	c.Note("asked by a member "+when, ofPeer(c, "GET", "/downgrade/enabled"))
	_, body = request(c, "GET", "/metrics")
	for _, line := range strings.Split(body, "\n") {
		// Those with 0 are the versions that this process has seen in its log.
		if strings.HasPrefix(line, "etcd_cluster_version{") && strings.HasSuffix(line, " 1") {
			c.Note("metric "+when, line)
		}
	}
}

func ofPeer(c *Case, method, path string) string {
	c.Helper()
	r, err := http.NewRequestWithContext(c.Context(), method, "http://"+c.Server.Peer+path, nil)
	if err != nil {
		c.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		c.Fatal(err)
	}
	return fmt.Sprintf("%s\n%s %s %s\n%s<end>", answer.Status, answer.Header.Get("Content-Type"),
		answer.Header.Get("X-Etcd-Cluster-Id"), answer.Header.Get("Allow"), body)
}

func TestADowngradeIsValidatedEnabledAndCancelled(t *testing.T) {
	OnBoth(t, func(c *Case) {
		agreed(c, "3.7.0")
		for _, version := range []string{"", "3", "v3.6.0", "3.6.x", "3.6.0.1", "3.6-rc", "3.6.0-rc_1", " 3.6"} {
			for _, action := range []pb.DowngradeRequest_DowngradeAction{validate, enable} {
				Refuse(c, fmt.Sprintf("%v %q", action, version), c.Maintenance.Downgrade,
					&pb.DowngradeRequest{Action: action, Version: version}, codes.InvalidArgument, wrongFormat)
			}
		}
		for _, version := range []string{"3.7", "3.7.0", "3.5.0", "3.8.0", "4.6.0", "2.6", "0.0.0", "9223372036854775807.0"} {
			Refuse(c, "target "+version, c.Maintenance.Downgrade,
				&pb.DowngradeRequest{Action: enable, Version: version}, codes.InvalidArgument, wrongTarget)
		}
		for _, version := range []string{"3.6", "3.6.0", "3.6.9", "3.6.0-rc.1", "3.6.0+build-5"} {
			downgrade(c, "good "+version, validate, version)
		}
		Refuse(c, "no action of that number", c.Maintenance.Downgrade, &pb.DowngradeRequest{Action: 7, Version: "3.6"},
			codes.Unknown, "etcdserver: unknown method")
		downgrade(c, "cancelled without one", cancel, "")
		shown(c, "before")

		downgrade(c, "enabled", enable, "3.6.5")
		Refuse(c, "enabled again", c.Maintenance.Downgrade, &pb.DowngradeRequest{Action: enable, Version: "3.6"},
			codes.FailedPrecondition, inProgress)
		agreed(c, "3.6.0")
		shown(c, "on the way")
		Refuse(c, "the target again", c.Maintenance.Downgrade, &pb.DowngradeRequest{Action: validate, Version: "3.6"},
			codes.InvalidArgument, wrongTarget)
		Refuse(c, "one further down", c.Maintenance.Downgrade, &pb.DowngradeRequest{Action: validate, Version: "3.5"},
			codes.FailedPrecondition, inProgress)
		c.Server.Kill()
		c.Server.Restart(c)
		c.Reconnect()
		agreed(c, "3.6.0")
		shown(c, "after kill -9")
		downgrade(c, "cancelled", cancel, "")
		agreed(c, "3.7.0")
		shown(c, "after it was cancelled")
		downgrade(c, "good again", validate, "3.6")
		c.Note("another method", ofPeer(c, "POST", "/downgrade/enabled"))
		c.Note("another path", ofPeer(c, "GET", "/downgrade/enabled/"))
		c.Everything("nothing else changed")
	})
}

func TestADowngradeEndsOnlyWhenAllMembersAreOfItsVersion(t *testing.T) {
	OnBoth(t, func(c *Case) {
		agreed(c, "3.7.0")
		downgrade(c, "enabled", enable, "3.6")
		c.Eventually("the check", func() bool {
			return strings.Contains(c.Server.Log(), "remotes server has mismatching etcd version")
		})
		agreed(c, "3.6.0")
		shown(c, "after the check")
	}, "--downgrade-check-time", "50ms")
}

func TestOnlyRootDowngrades(t *testing.T) {
	OnBoth(t, func(c *Case) {
		agreed(c, "3.7.0")
		a := nobody(c)
		a.addUser("alice")
		root := a.enable()
		alice := a.logIn("alice", "pw-alice")
		for _, action := range []pb.DowngradeRequest_DowngradeAction{validate, enable, cancel} {
			request := &pb.DowngradeRequest{Action: action, Version: "3.6"}
			try(a, fmt.Sprint("nobody ", action), c.Maintenance.Downgrade, request)
			try(alice, fmt.Sprint("alice ", action), c.Maintenance.Downgrade, request)
			try(root, fmt.Sprint("root ", action), c.Maintenance.Downgrade, request)
		}
		try(root, "enabled once more", c.Maintenance.Downgrade, &pb.DowngradeRequest{Action: enable, Version: "3.6"})
		c.Eventually("the cluster's version changes without a user", func() bool {
			_, body := request(c, "GET", "/version")
			return strings.Contains(body, `"etcdcluster":"3.6.0"`)
		})
	}, cheap...)
}

func TestADowngradeIsStoredByteForByteAsEtcdStoresIt(t *testing.T) {
	OnBoth(t, func(c *Case) {
		agreed(c, "3.7.0")
		downgrade(c, "enabled", enable, "3.6")
		agreed(c, "3.6.0")
		rows(nobody(c), "cluster")
		downgrade(c, "cancelled", cancel, "")
		agreed(c, "3.7.0")
		rows(nobody(c), "cluster")
	})
}
