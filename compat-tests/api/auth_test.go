package api

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	. "etched.local/compat-tests/harness"
)

// cheap makes hashing passwords fast.
var cheap = []string{"--bcrypt-cost", "4"}

const (
	read  = authpb.Permission_READ
	write = authpb.Permission_WRITE
	both  = authpb.Permission_READWRITE
)

// asker calls with a token, or with none.
type asker struct {
	c     *Case
	auth  pb.AuthClient
	token string
}

func nobody(c *Case) asker { return asker{c: c, auth: pb.NewAuthClient(c.Conn)} }

func (a asker) with(token string) asker {
	a.token = token
	return a
}

func (a asker) context() context.Context {
	if a.token == "" {
		return a.c.Context()
	}
	return metadata.AppendToOutgoingContext(a.c.Context(), "token", a.token)
}

// logIn gives the caller's token; it is random, so nothing is recorded.
func (a asker) logIn(name, password string) asker {
	a.c.Helper()
	answer, err := a.auth.Authenticate(a.c.Context(), &pb.AuthenticateRequest{Name: name, Password: password})
	if err != nil {
		a.c.Fatalf("login of %s: %v", name, err)
	}
	return a.with(answer.Token)
}

// try calls and records what comes, answer or refusal.
func try[Q, A proto.Message](a asker, step string, call Method[Q, A], request Q) A {
	a.c.Helper()
	answer, err := call(a.context(), request)
	if err != nil {
		a.c.RecordError(step, err)
	} else {
		a.c.Record(step, answer)
	}
	return answer
}

// done calls and records an answer that has to be one.
func done[Q, A proto.Message](a asker, step string, call Method[Q, A], request Q) A {
	a.c.Helper()
	answer, err := call(a.context(), request)
	if err != nil {
		a.c.Fatalf("%s: %v", step, err)
	}
	a.c.Record(step, answer)
	return answer
}

func (a asker) addUser(name string, roles ...string) {
	a.c.Helper()
	done(a, "add user "+name, a.auth.UserAdd, &pb.AuthUserAddRequest{Name: name, Password: "pw-" + name})
	for _, role := range roles {
		done(a, "grant "+role, a.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: name, Role: role})
	}
}

func (a asker) permit(role string, kind authpb.Permission_Type, key, end string) {
	a.c.Helper()
	done(a, "permit "+role, a.auth.RoleGrantPermission, &pb.AuthRoleGrantPermissionRequest{Name: role,
		Perm: &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}})
}

// enable switches authentication on, with root, and gives root's caller.
func (a asker) enable() asker {
	a.c.Helper()
	a.addUser("root", "root")
	done(a, "enable", a.auth.AuthEnable, &pb.AuthEnableRequest{})
	return a.logIn("root", "pw-root")
}

func TestAuthManagementIsRefusedInEtcdsWords(t *testing.T) {
	OnBoth(t, func(c *Case) {
		manage(nobody(c), "off")
		a := nobody(c)
		try(a, "disable when off", a.auth.AuthDisable, &pb.AuthDisableRequest{})
		try(a, "login when off", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "root", Password: "x"})
		try(a, "enable without root", a.auth.AuthEnable, &pb.AuthEnableRequest{})
		try(a, "add root", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "root", Password: "pw-root"})
		try(a, "enable without role", a.auth.AuthEnable, &pb.AuthEnableRequest{})
		try(a, "role root need not exist", a.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
		try(a, "role root does not exist", a.auth.RoleGet, &pb.AuthRoleGetRequest{Role: "root"})
		try(a, "status off", a.auth.AuthStatus, &pb.AuthStatusRequest{})
		try(a, "enable", a.auth.AuthEnable, &pb.AuthEnableRequest{})
		try(a, "status on", a.auth.AuthStatus, &pb.AuthStatusRequest{})
		root := a.logIn("root", "pw-root")
		manage(root, "on")
		try(root, "enable again", a.auth.AuthEnable, &pb.AuthEnableRequest{})
		try(root, "delete root", a.auth.UserDelete, &pb.AuthUserDeleteRequest{Name: "root"})
		try(root, "take role root", a.auth.UserRevokeRole, &pb.AuthUserRevokeRoleRequest{Name: "root", Role: "root"})
		try(root, "delete role root", a.auth.RoleDelete, &pb.AuthRoleDeleteRequest{Role: "root"})
		try(root, "add role root", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "root"})
		try(root, "role root", a.auth.RoleGet, &pb.AuthRoleGetRequest{Role: "root"})
		try(root, "status", a.auth.AuthStatus, &pb.AuthStatusRequest{})
		try(root, "disable", a.auth.AuthDisable, &pb.AuthDisableRequest{})
		try(a, "status after", a.auth.AuthStatus, &pb.AuthStatusRequest{})
	}, cheap...)
}

func manage(a asker, when string) {
	a.c.Helper()
	user, role := when+"-user", when+"-role"
	add := func(name string) *pb.AuthUserAddRequest { return &pb.AuthUserAddRequest{Name: name, Password: "p"} }
	try(a, "user without name", a.auth.UserAdd, add(""))
	try(a, "user", a.auth.UserAdd, add(user))
	try(a, "user again", a.auth.UserAdd, add(user))
	try(a, "long password", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "long", Password: strings.Repeat("x", 73)})
	try(a, "longest password", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: when + "-72", Password: strings.Repeat("x", 72)})
	try(a, "no password", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: when + "-none", Password: "ignored",
		Options: &authpb.UserAddOptions{NoPassword: true}})
	try(a, "a hash of one's own is overwritten", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: when + "-own", HashedPassword: "!"})
	try(a, "change of a missing user", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: "missing", Password: "x"})
	try(a, "change to a hash that is none", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: user, HashedPassword: "!"})
	try(a, "change to a long one", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: user, Password: strings.Repeat("x", 73)})
	try(a, "change", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: user, Password: "y"})
	try(a, "change of a user without", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: when + "-none", Password: "y"})
	try(a, "change to none", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: when + "-own"})
	try(a, "role without name", a.auth.RoleAdd, &pb.AuthRoleAddRequest{})
	try(a, "role", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: role})
	try(a, "role again", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: role})
	grant := func(step, name, key, end string, kind authpb.Permission_Type) {
		try(a, step, a.auth.RoleGrantPermission, &pb.AuthRoleGrantPermissionRequest{Name: name,
			Perm: &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}})
	}
	try(a, "no permission", a.auth.RoleGrantPermission, &pb.AuthRoleGrantPermissionRequest{Name: role})
	grant("to a missing role", "missing", "a", "", read)
	grant("no key", role, "", "", read)
	grant("no key but an end", role, "", "b", read)
	grant("end before key", role, "b", "a", read)
	grant("end is key", role, "b", "b", read)
	grant("open", role, "b", "\x00", read)
	grant("single", role, "b", "", write)
	grant("single again", role, "b", "", both)
	grant("open again", role, "b", "\x00", both)
	grant("before", role, "a", "c", read)
	grant("unknown type", role, "z", "", 7)
	try(a, "get role", a.auth.RoleGet, &pb.AuthRoleGetRequest{Role: role})
	try(a, "get missing role", a.auth.RoleGet, &pb.AuthRoleGetRequest{Role: "missing"})
	try(a, "grant missing role", a.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: user, Role: "missing"})
	try(a, "grant to a missing user", a.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: "missing", Role: role})
	try(a, "grant", a.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: user, Role: role})
	try(a, "status", a.auth.AuthStatus, &pb.AuthStatusRequest{})
	try(a, "grant again", a.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: user, Role: role})
	try(a, "the same status", a.auth.AuthStatus, &pb.AuthStatusRequest{})
	try(a, "get user", a.auth.UserGet, &pb.AuthUserGetRequest{Name: user})
	try(a, "get missing user", a.auth.UserGet, &pb.AuthUserGetRequest{Name: "missing"})
	try(a, "users", a.auth.UserList, &pb.AuthUserListRequest{})
	try(a, "roles", a.auth.RoleList, &pb.AuthRoleListRequest{})
	revoke := func(step, name, key, end string) {
		try(a, step, a.auth.RoleRevokePermission, &pb.AuthRoleRevokePermissionRequest{Role: name, Key: []byte(key), RangeEnd: []byte(end)})
	}
	revoke("from a missing role", "missing", "a", "")
	revoke("not there", role, "a", "")
	revoke("there", role, "b", "\x00")
	try(a, "take a role that is not had", a.auth.UserRevokeRole, &pb.AuthUserRevokeRoleRequest{Name: user, Role: "missing"})
	try(a, "take from a missing user", a.auth.UserRevokeRole, &pb.AuthUserRevokeRoleRequest{Name: "missing", Role: role})
	try(a, "delete role", a.auth.RoleDelete, &pb.AuthRoleDeleteRequest{Role: role})
	try(a, "delete role again", a.auth.RoleDelete, &pb.AuthRoleDeleteRequest{Role: role})
	try(a, "the user has it no more", a.auth.UserGet, &pb.AuthUserGetRequest{Name: user})
	try(a, "delete user", a.auth.UserDelete, &pb.AuthUserDeleteRequest{Name: user})
	try(a, "delete user again", a.auth.UserDelete, &pb.AuthUserDeleteRequest{Name: user})
	try(a, "status in the end", a.auth.AuthStatus, &pb.AuthStatusRequest{})
}

func TestEachCallIsForThoseWhomEtcdLets(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a := nobody(c)
		c.Put("k", "1")
		c.Grant(1, 600)
		a.addUser("alice")
		done(a, "role", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "r"})
		done(a, "own role", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "own"})
		done(a, "grant", a.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: "alice", Role: "own"})
		root := a.enable()
		status, err := c.Maintenance.Status(root.context(), &pb.StatusRequest{})
		if err != nil {
			c.Fatal(err)
		}
		me := status.Header.MemberId
		callers := []struct {
			name string
			as   asker
		}{
			{"nobody", a}, {"bad token", a.with("abc.1")}, {"no token at all", a.with("abc")},
			{"alice", a.logIn("alice", "pw-alice")}, {"root", root},
		}
		for _, caller := range callers {
			step := func(name string) string { return caller.name + ": " + name }
			as := caller.as
			try(as, step("range"), c.KV.Range, &pb.RangeRequest{Key: []byte("k")})
			try(as, step("local range"), c.KV.Range, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
			try(as, step("range without key"), c.KV.Range, &pb.RangeRequest{})
			try(as, step("put"), c.KV.Put, &pb.PutRequest{Key: []byte("k")})
			try(as, step("put without key"), c.KV.Put, &pb.PutRequest{})
			try(as, step("delete"), c.KV.DeleteRange, &pb.DeleteRangeRequest{Key: []byte("x")})
			try(as, step("empty txn"), c.KV.Txn, &pb.TxnRequest{})
			try(as, step("nested empty txn"), c.KV.Txn, &pb.TxnRequest{Success: []*pb.RequestOp{
				{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}}}})
			try(as, step("compact"), c.KV.Compact, &pb.CompactionRequest{Revision: 99})
			try(as, step("grant"), c.Lease.LeaseGrant, &pb.LeaseGrantRequest{ID: 1, TTL: 60})
			try(as, step("revoke"), c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 99})
			try(as, step("missing lease"), c.Lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 99})
			try(as, step("missing lease with keys"), c.Lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 99, Keys: true})
			try(as, step("leases"), c.Lease.LeaseLeases, &pb.LeaseLeasesRequest{})
			try(as, step("members"), c.Cluster.MemberList, &pb.MemberListRequest{})
			try(as, step("alarms"), c.Maintenance.Alarm, &pb.AlarmRequest{})
			try(as, step("disarm"), c.Maintenance.Alarm, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: me, Alarm: pb.AlarmType_NOSPACE})
			note(as, step("status"), c.Maintenance.Status, &pb.StatusRequest{})
			note(as, step("defragment"), c.Maintenance.Defragment, &pb.DefragmentRequest{})
			note(as, step("hash"), c.Maintenance.Hash, &pb.HashRequest{})
			try(as, step("hashkv"), c.Maintenance.HashKV, &pb.HashKVRequest{})
			try(as, step("move leader"), c.Maintenance.MoveLeader, &pb.MoveLeaderRequest{TargetID: 1})
			try(as, step("auth status"), a.auth.AuthStatus, &pb.AuthStatusRequest{})
			try(as, step("own user"), a.auth.UserGet, &pb.AuthUserGetRequest{Name: "alice"})
			try(as, step("other user"), a.auth.UserGet, &pb.AuthUserGetRequest{Name: "root"})
			try(as, step("user without name"), a.auth.UserGet, &pb.AuthUserGetRequest{})
			try(as, step("own role"), a.auth.RoleGet, &pb.AuthRoleGetRequest{Role: "own"})
			try(as, step("other role"), a.auth.RoleGet, &pb.AuthRoleGetRequest{Role: "r"})
			try(as, step("users"), a.auth.UserList, &pb.AuthUserListRequest{})
			try(as, step("roles"), a.auth.RoleList, &pb.AuthRoleListRequest{})
			try(as, step("add user"), a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "new"})
			try(as, step("delete user"), a.auth.UserDelete, &pb.AuthUserDeleteRequest{Name: "missing"})
			try(as, step("change own password"), a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: "alice", Password: "pw-alice"})
			try(as, step("add role"), a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "r"})
			try(as, step("delete role"), a.auth.RoleDelete, &pb.AuthRoleDeleteRequest{Role: "missing"})
			try(as, step("enable"), a.auth.AuthEnable, &pb.AuthEnableRequest{})
		}
		try(callers[3].as, "alice disables", a.auth.AuthDisable, &pb.AuthDisableRequest{})
		try(a, "nobody disables", a.auth.AuthDisable, &pb.AuthDisableRequest{})
		try(root, "root disables", a.auth.AuthDisable, &pb.AuthDisableRequest{})
		try(a.with("abc.1"), "a bad token does not count", c.KV.Range, &pb.RangeRequest{Key: []byte("k")})
	}, cheap...)
}

// note records how it ended, but not what is in the answer.
func note[Q, A proto.Message](a asker, step string, call Method[Q, A], request Q) {
	a.c.Helper()
	_, err := call(a.context(), request)
	a.c.RecordError(step, err)
}

func readOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func writeOp(put *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
}

func removeOp(key, end string, prev bool) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end), PrevKv: prev}}}
}

func innerOp(txn *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
}

// keys gives alice: read a-c, read c-e, write w, both b, write from x on; bob: everything.
func keys(a asker) (alice, bob, root asker) {
	done(a, "role", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "r1"})
	done(a, "role", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "r2"})
	done(a, "role", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "all"})
	a.permit("r1", read, "a", "c")
	a.permit("r2", read, "c", "e")
	a.permit("r1", write, "w", "")
	a.permit("r2", both, "b", "")
	a.permit("r2", write, "x", "\x00")
	a.permit("all", both, "\x00", "\x00")
	a.addUser("alice", "r1", "r2")
	a.addUser("bob", "all")
	root = a.enable()
	return a.logIn("alice", "pw-alice"), a.logIn("bob", "pw-bob"), root
}

func TestPermissionsAreThoseOfTheWholeRequest(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a := nobody(c)
		for _, key := range []string{"a", "b", "c", "d", "e", "w", "x", "y"} {
			c.Put(key, "0")
		}
		alice, bob, root := keys(a)
		for _, pair := range [][2]string{{"a", ""}, {"a", "c"}, {"a", "e"}, {"a", "f"}, {"d", "e"}, {"d", "c"}, {"e", ""},
			{"e", "a"}, {"a", "\x00"}, {"b", "b\x00"}, {"b", "bzz"}, {"w", ""}, {"x", "\x00"}, {"\x00", "\x00"}, {"\x00", "a"}} {
			for name, as := range map[string]asker{"alice": alice, "bob": bob, "root": root} {
				name = fmt.Sprintf("%s %q to %q", name, pair[0], pair[1])
				underOf(as, "range "+name, c.KV.Range, &pb.RangeRequest{Key: []byte(pair[0]), RangeEnd: []byte(pair[1])})
				underOf(as, "range in txn "+name, c.KV.Txn, &pb.TxnRequest{Success: []*pb.RequestOp{readOp(pair[0], pair[1])}})
			}
		}
		for _, pair := range [][2]string{{"b", ""}, {"w", ""}, {"x", "\x00"}, {"x", "z"}, {"w", "x"}, {"w", "z"}, {"a", ""}} {
			for _, prev := range []bool{false, true} {
				step := fmt.Sprintf("delete %q to %q, prev %v", pair[0], pair[1], prev)
				try(alice, step, c.KV.DeleteRange, &pb.DeleteRangeRequest{Key: []byte(pair[0]), RangeEnd: []byte(pair[1]), PrevKv: prev})
				try(alice, step+" in txn", c.KV.Txn, &pb.TxnRequest{Success: []*pb.RequestOp{removeOp(pair[0], pair[1], prev)}})
			}
		}
		for _, key := range []string{"b", "w", "xx", "a", "z", "v"} {
			for _, prev := range []bool{false, true} {
				put := &pb.PutRequest{Key: []byte(key), Value: []byte("1"), PrevKv: prev}
				step := fmt.Sprintf("put %q, prev %v", key, prev)
				try(alice, step, c.KV.Put, put)
				try(alice, step+" in txn", c.KV.Txn, &pb.TxnRequest{Success: []*pb.RequestOp{writeOp(put)}})
			}
		}
		compare := func(key, end string) *pb.Compare {
			return &pb.Compare{Key: []byte(key), RangeEnd: []byte(end), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER,
				TargetUnion: &pb.Compare_Version{Version: 0}}
		}
		allowed, denied := writeOp(&pb.PutRequest{Key: []byte("w")}), writeOp(&pb.PutRequest{Key: []byte("a")})
		for step, txn := range map[string]*pb.TxnRequest{
			"compare allowed":           {Compare: []*pb.Compare{compare("a", "")}, Success: []*pb.RequestOp{allowed}},
			"compare denied":            {Compare: []*pb.Compare{compare("w", "")}, Success: []*pb.RequestOp{allowed}},
			"compare range denied":      {Compare: []*pb.Compare{compare("a", "f")}},
			"compare range allowed":     {Compare: []*pb.Compare{compare("a", "e")}},
			"branch not taken":          {Compare: []*pb.Compare{compare("a", "")}, Failure: []*pb.RequestOp{denied}},
			"nested":                    {Success: []*pb.RequestOp{innerOp(&pb.TxnRequest{Success: []*pb.RequestOp{denied}})}},
			"nested, branch not taken":  {Success: []*pb.RequestOp{innerOp(&pb.TxnRequest{Failure: []*pb.RequestOp{denied}})}},
			"nested compare":            {Success: []*pb.RequestOp{innerOp(&pb.TxnRequest{Compare: []*pb.Compare{compare("x", "")}})}},
			"nested twice, all allowed": {Success: []*pb.RequestOp{innerOp(&pb.TxnRequest{Success: []*pb.RequestOp{innerOp(&pb.TxnRequest{Success: []*pb.RequestOp{allowed}})}})}},
			"nested read":               {Failure: []*pb.RequestOp{innerOp(&pb.TxnRequest{Failure: []*pb.RequestOp{readOp("e", "")}})}},
			"an op that is none":        {Success: []*pb.RequestOp{{}}},
		} {
			underEnd(alice, step, c.KV.Txn, txn)
			underEnd(a, "nobody, "+step, c.KV.Txn, txn)
		}
		try(root, "everything", c.KV.Range, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true})
	}, cheap...)
}

// underOf records an answer or a refusal under a name, for bodies that walk a map.
func underOf[Q, A proto.Message](a asker, name string, call Method[Q, A], request Q) {
	a.c.Helper()
	answer, err := call(a.context(), request)
	if err != nil {
		a.c.NoteUnder(name, status.Convert(err).String())
	} else {
		a.c.RecordUnder(name, answer)
	}
}

// underEnd records only how it ended: what a write answers depends on the order.
func underEnd[Q, A proto.Message](a asker, name string, call Method[Q, A], request Q) {
	a.c.Helper()
	_, err := call(a.context(), request)
	a.c.NoteUnder(name, fmt.Sprint(err))
}

func TestRangeStreamsAreForReaders(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a := nobody(c)
		c.Put("a", "1")
		alice, _, root := keys(a)
		for name, as := range map[string]asker{"nobody": a, "alice": alice, "root": root, "bad": a.with("x.1")} {
			for _, key := range []string{"a", "x"} {
				stream, err := c.KV.RangeStream(as.context(), &pb.RangeRequest{Key: []byte(key)})
				if err == nil {
					_, err = stream.Recv()
				}
				c.NoteUnder(name+" "+key, fmt.Sprint(err))
			}
		}
	}, cheap...)
}

func TestLeasesBelongToThoseWhoMayWriteTheirKeys(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a := nobody(c)
		c.Grant(1, 600)
		c.Grant(2, 600)
		c.Grant(3, 600)
		for _, id := range []int64{1, 2} {
			leasedPut(c, []string{"", "w", "a"}[id], id)
		}
		leasedPut(c, "b", 2)
		leasedPut(c, "b", 3)
		alice, bob, root := keys(a)
		put := func(step string, as asker, key string, id int64) {
			try(as, step, c.KV.Put, &pb.PutRequest{Key: []byte(key), Lease: id})
			note(as, step+" in txn", c.KV.Txn, &pb.TxnRequest{Success: []*pb.RequestOp{innerOp(&pb.TxnRequest{
				Success: []*pb.RequestOp{writeOp(&pb.PutRequest{Key: []byte(key), Lease: id})}})}})
		}
		put("to a lease whose keys alice writes", alice, "w", 1)
		put("to a lease whose keys alice does not write", alice, "w", 2)
		put("to a missing lease", alice, "w", 9)
		put("to an own key's lease", alice, "b", 3)
		for _, id := range []int64{1, 2, 3, 9} {
			for name, as := range map[string]asker{"nobody": a, "alice": alice, "bob": bob, "root": root} {
				_, err := c.Lease.LeaseTimeToLive(as.context(), &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
				c.NoteUnder(fmt.Sprintf("%s sees keys of %d", name, id), fmt.Sprint(err))
				_, err = c.Lease.LeaseTimeToLive(as.context(), &pb.LeaseTimeToLiveRequest{ID: id})
				c.NoteUnder(fmt.Sprintf("%s sees %d", name, id), fmt.Sprint(err))
				c.NoteUnder(fmt.Sprintf("%s renews %d", name, id), renewal(as, id))
			}
		}
		for name, as := range map[string]asker{"nobody": a, "alice": alice, "bob": bob, "root": root} {
			answer, err := c.Lease.LeaseLeases(as.context(), &pb.LeaseLeasesRequest{})
			c.NoteUnder(name+" lists", fmt.Sprint(len(answer.GetLeases()), err))
		}
		for _, id := range []int64{2, 1, 9} {
			try(a, "nobody revokes", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: id})
			try(alice, "alice revokes", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: id})
		}
		try(bob, "bob revokes", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 2})
		done(root, "a short lease", c.Lease.LeaseGrant, &pb.LeaseGrantRequest{ID: 5, TTL: 1})
		done(root, "its key", c.KV.Put, &pb.PutRequest{Key: []byte("short"), Lease: 5})
		c.Eventually("it runs out while authentication is on", func() bool {
			answer, err := c.KV.Range(root.context(), &pb.RangeRequest{Key: []byte("short")})
			return err == nil && answer.Count == 0
		})
	}, cheap...)
}

func renewal(a asker, id int64) string {
	stream, err := a.c.Lease.LeaseKeepAlive(a.context())
	if err == nil {
		err = stream.Send(&pb.LeaseKeepAliveRequest{ID: id})
	}
	if err != nil {
		return fmt.Sprint(err)
	}
	answer, err := stream.Recv()
	return fmt.Sprint(answer.GetTTL(), err)
}

func TestWatchesAreAllowedWhenTheyBegin(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a := nobody(c)
		c.Put("a", "1")
		alice, _, root := keys(a)
		watch := func(name string, as asker) *Stream {
			s := c.OpenWatch(as.context())
			create := func(step, key, end string, start int64) {
				s.Create(name+" "+step, &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: start})
			}
			create("readable key", "a", "", 0)
			create("readable range", "a", "e", 0)
			create("too long a range", "a", "f", 0)
			create("written key", "w", "", 0)
			create("everything", "", "\x00", 0)
			create("no key", "", "", 0)
			create("open", "a", "\x00", 0)
			create("from below", "w", "", -1)
			create("end before key", "b", "a", 0)
			return s
		}
		watch("nobody", a)
		watch("bad token", a.with("x.1"))
		watch("root", root)
		s := watch("alice", alice)
		done(root, "take the role", a.auth.UserRevokeRole, &pb.AuthUserRevokeRoleRequest{Name: "alice", Role: "r1"})
		done(root, "take the role", a.auth.UserRevokeRole, &pb.AuthUserRevokeRoleRequest{Name: "alice", Role: "r2"})
		done(root, "put", c.KV.Put, &pb.PutRequest{Key: []byte("a"), Value: []byte("2")})
		s.Take("an event after the permission is gone")
		s.Take("of the other watcher too")
		s.Create("denied now", &pb.WatchCreateRequest{Key: []byte("a")})
	}, cheap...)
}

func TestTokensEndWithWhatTheyStandFor(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a := nobody(c)
		alice, bob, root := keys(a)
		get := func(step string, as asker) {
			c.Helper()
			note(as, step, c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
		}
		get("alice", alice)
		bearer := metadata.AppendToOutgoingContext(c.Context(), "authorization", "Bearer "+alice.token)
		_, err := c.KV.Range(bearer, &pb.RangeRequest{Key: []byte("a")})
		c.RecordError("as bearer", err)
		plain := metadata.AppendToOutgoingContext(c.Context(), "authorization", alice.token)
		_, err = c.KV.Range(plain, &pb.RangeRequest{Key: []byte("a")})
		c.RecordError("authorization without a word", err)
		two := metadata.AppendToOutgoingContext(c.Context(), "authorization", alice.token, "token", "bad.1")
		_, err = c.KV.Range(two, &pb.RangeRequest{Key: []byte("a")})
		c.RecordError("token counts first", err)
		for _, token := range []string{"", "x", "x.y", "x.1.2", ".", "x.", "x.+1", "Bearer " + alice.token, "bearer " + alice.token,
			"x.18446744073709551616", alice.token + "0", alice.token + " "} {
			ctx := metadata.AppendToOutgoingContext(c.Context(), "token", token)
			short, cancel := context.WithTimeout(ctx, time.Second)
			_, err := c.KV.Range(short, &pb.RangeRequest{Key: []byte("a")})
			cancel()
			step := "token " + strings.ReplaceAll(token, alice.token, "<alice>")
			if token == alice.token+"0" {
				// It waits for an entry that is far away: whether the client or the server ends that first is chance.
				c.Notef(step, "%v", status.Code(err))
				continue
			}
			c.RecordError(step, err)
		}
		done(root, "another user's change", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "carol"})
		get("alice after that", alice)
		done(root, "password", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: "alice", Password: "new"})
		get("alice after her password", alice)
		try(a, "the old password", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "alice", Password: "pw-alice"})
		try(a, "no password", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "alice"})
		try(a, "unknown user", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "nemo", Password: "new"})
		try(a, "no user", a.auth.Authenticate, &pb.AuthenticateRequest{})
		done(root, "without password", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "cert", Options: &authpb.UserAddOptions{NoPassword: true}})
		try(a, "a user without password", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "cert", Password: "x"})
		try(a, "a user without password, none given", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "cert"})
		done(root, "change to nothing", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: "carol"})
		try(a, "an empty hash", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "carol"})
		done(root, "an empty password", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "empty"})
		note(a, "an empty password is one", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "empty"})
		alice = a.logIn("alice", "new")
		get("alice again", alice)
		done(root, "delete bob", a.auth.UserDelete, &pb.AuthUserDeleteRequest{Name: "bob"})
		get("bob is gone", bob)
		done(root, "disable", a.auth.AuthDisable, &pb.AuthDisableRequest{})
		done(a, "enable", a.auth.AuthEnable, &pb.AuthEnableRequest{})
		get("alice after off and on", alice)
		get("root after off and on", root)
	}, cheap...)
}

func TestUsersAndRolesSurviveKillMinusNine(t *testing.T) {
	OnBoth(t, func(c *Case) {
		keys(nobody(c))
		c.Server.Kill()
		c.Server.Restart(c)
		conn := c.Server.Dial(c)
		c.Conn, c.KV = conn, pb.NewKVClient(conn)
		a := nobody(c)
		note(a, "nobody", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
		alice, root := a.logIn("alice", "pw-alice"), a.logIn("root", "pw-root")
		note(alice, "alice reads", c.KV.Range, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("e")})
		note(alice, "alice reads too much", c.KV.Range, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("f")})
		state, err := a.auth.AuthStatus(c.Context(), &pb.AuthStatusRequest{})
		c.Notef("status", "%v %v %v", state.GetEnabled(), state.GetAuthRevision(), err)
		for _, role := range []string{"r1", "r2", "all"} {
			answer, err := a.auth.RoleGet(root.context(), &pb.AuthRoleGetRequest{Role: role})
			c.Notef("role "+role, "%v %v", answer.GetPerm(), err)
		}
	}, cheap...)
}

func TestSignedTokensSayTheirRevision(t *testing.T) {
	folder := t.TempDir()
	private, public := keyFiles(t, folder)
	for _, method := range []string{"RS256", "PS512"} {
		t.Run(method, func(t *testing.T) {
			flag := "jwt,sign-method=" + method + ",priv-key=" + private + ",pub-key=" + public + ",ttl=3s"
			OnBoth(t, func(c *Case) { signed(c) }, "--auth-token", flag, "--bcrypt-cost", "4")
		})
	}
}

func signed(c *Case) {
	a := nobody(c)
	c.Put("a", "1")
	alice, _, root := keys(a)
	note(alice, "range", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
	note(alice, "denied", c.KV.Range, &pb.RangeRequest{Key: []byte("x")})
	parts := strings.Split(alice.token, ".")
	c.Notef("parts", "%d %s", len(parts), parts[0])
	note(a.with(alice.token+"x"), "changed", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
	note(a.with("x.1"), "simple", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
	done(root, "a change", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "new"})
	note(alice, "old for range", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
	note(alice, "old for put", c.KV.Put, &pb.PutRequest{Key: []byte("w")})
	note(alice, "old for members", c.Cluster.MemberList, &pb.MemberListRequest{})
	note(root, "old for compact", c.KV.Compact, &pb.CompactionRequest{Revision: 99})
	note(root, "old for users", a.auth.UserList, &pb.AuthUserListRequest{})
	s := c.OpenWatch(alice.context())
	s.Create("old for watch", &pb.WatchCreateRequest{Key: []byte("a")})
	oldForLeases(c, a, alice, root)
	alice = a.logIn("alice", "pw-alice")
	note(alice, "range again", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
	c.Eventually("the token ends", func() bool {
		_, err := c.KV.Range(alice.context(), &pb.RangeRequest{Key: []byte("a")})
		return status.Code(err) == codes.Unauthenticated
	})
	note(alice, "ended", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
}

// oldForLeases asks about leases with tokens of an earlier revision: root's are good, and so is everybody's for a
// lease without keys.
func oldForLeases(c *Case, a, alice, root asker) {
	leases := func(step string) {
		c.Helper()
		for name, as := range map[string]asker{"nobody": a, "alice": alice, "root": root} {
			answer, err := c.Lease.LeaseLeases(as.context(), &pb.LeaseLeasesRequest{})
			c.NoteUnder(step+": "+name+" lists", fmt.Sprint(len(answer.GetLeases()), err))
			for _, id := range []int64{1, 2, 9} {
				for _, keys := range []bool{false, true} {
					answer, err := c.Lease.LeaseTimeToLive(as.context(), &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys})
					c.NoteUnder(fmt.Sprintf("%s: %s asks for %d, keys %v", step, name, id, keys),
						fmt.Sprint(answer.GetGrantedTTL(), len(answer.GetKeys()), err))
				}
				c.NoteUnder(fmt.Sprintf("%s: %s renews %d", step, name, id), renewal(as, id))
			}
		}
	}
	done(alice, "old for grant", c.Lease.LeaseGrant, &pb.LeaseGrantRequest{ID: 1, TTL: 600})
	leases("no keys")
	fresh := a.logIn("root", "pw-root")
	done(fresh, "grant", c.Lease.LeaseGrant, &pb.LeaseGrantRequest{ID: 2, TTL: 600})
	done(fresh, "a key of the lease", c.KV.Put, &pb.PutRequest{Key: []byte("a"), Lease: 2})
	leases("a key")
	note(alice, "old for revoke of an empty one", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 1})
	note(alice, "old for revoke", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 2})
	note(root, "root's old for revoke", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 2})
}

func keyFiles(t *testing.T, folder string) (private, public string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, kind string, bytes []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return file("private.pem", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), file("public.pem", "PUBLIC KEY", encoded)
}

func TestWithoutTokensNobodyLogsIn(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a := nobody(c)
		a.addUser("root", "root")
		done(a, "enable", a.auth.AuthEnable, &pb.AuthEnableRequest{})
		try(a, "login", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "root", Password: "pw-root"})
		note(a.with("x.1"), "a token", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
	}, "--auth-token", "", "--bcrypt-cost", "4")
}

func TestLocksAndElectionsMayDoWhatTheirCallerMay(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a := nobody(c)
		alice, bob, root := keys(a)
		lock, election := v3lockpb.NewLockClient(c.Conn), v3electionpb.NewElectionClient(c.Conn)
		for _, lease := range []int64{1, 2, 3} {
			done(root, "grant", c.Lease.LeaseGrant, &pb.LeaseGrantRequest{ID: lease, TTL: 600})
		}
		for name, as := range map[string]asker{"nobody": a, "alice": alice, "bad token": a.with("x.1")} {
			for _, key := range []string{"a", "x", "q"} {
				step := name + " " + key
				underEnd(as, step+" lock", lock.Lock, &v3lockpb.LockRequest{Name: []byte(key), Lease: 1})
				underEnd(as, step+" unlock", lock.Unlock, &v3lockpb.UnlockRequest{Key: []byte(key + "/1")})
				underEnd(as, step+" campaign", election.Campaign, &v3electionpb.CampaignRequest{Name: []byte(key), Lease: 2})
				underEnd(as, step+" leader", election.Leader, &v3electionpb.LeaderRequest{Name: []byte(key)})
			}
		}
		try(bob, "bob locks", lock.Lock, &v3lockpb.LockRequest{Name: []byte("a"), Lease: 3})
		try(bob, "bob unlocks", lock.Unlock, &v3lockpb.UnlockRequest{Key: []byte("a/3")})
		try(bob, "bob leads", election.Campaign, &v3electionpb.CampaignRequest{Name: []byte("a"), Lease: 3, Value: []byte("v")})
		try(bob, "who leads", election.Leader, &v3electionpb.LeaderRequest{Name: []byte("a")})
		note(alice, "alice reads it", election.Leader, &v3electionpb.LeaderRequest{Name: []byte("b")})
	}, cheap...)
}

// The hash that a client gives itself, so that both servers store the same.
const givenHash = "JDJhJDA0JGFiY2RlZmdoaWprbG1ub3BxcnN0dXVBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWjAxMjMy"

func TestUsersAndRolesAreStoredByteForByteAsEtcdStoresThem(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a := nobody(c)
		keys(a)
		root := a.logIn("root", "pw-root")
		done(root, "without password", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "cert", Options: &authpb.UserAddOptions{NoPassword: true}})
		done(root, "role of many", a.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "many"})
		// Up to twelve: with more, etcd puts those on one first key into an order of chance.
		for _, key := range []string{"m", "c", "m"} {
			for _, end := range []string{"", "z", "zz"} {
				root.permit("many", both, key, end)
			}
		}
		for _, name := range []string{"alice", "bob", "cert"} {
			done(root, "a given hash", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: name, HashedPassword: givenHash})
		}
		done(root, "take the last role", a.auth.UserRevokeRole, &pb.AuthUserRevokeRoleRequest{Name: "bob", Role: "all"})
		done(root, "delete a role", a.auth.RoleDelete, &pb.AuthRoleDeleteRequest{Role: "r1"})
		for _, name := range []string{"auth", "authUsers", "authRoles"} {
			rows(root, name)
		}
	}, cheap...)
}

// rows records a bucket of a snapshot. Root's hash has a salt of its own.
func rows(a asker, bucket string) {
	a.c.Helper()
	stream, err := a.c.Maintenance.Snapshot(a.context(), &pb.SnapshotRequest{})
	if err != nil {
		a.c.Fatal(err)
	}
	var file []byte
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			a.c.Fatal(err)
		}
		file = append(file, part.Blob...)
	}
	path := filepath.Join(a.c.TempDir(), "db")
	if err := os.WriteFile(path, file[:len(file)-sha256.Size], 0o600); err != nil {
		a.c.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	if err != nil {
		a.c.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(key, value []byte) error {
			if string(key) == "root" && bucket == "authUsers" {
				var user authpb.User
				if err := proto.Unmarshal(value, &user); err != nil {
					return err
				}
				user.Password = nil
				value, _ = proto.MarshalOptions{Deterministic: true}.Marshal(&user)
			}
			a.c.Notef(bucket+" "+string(key), "%x", value)
			return nil
		})
	})
	if err != nil {
		a.c.Fatal(err)
	}
}

// One of them ends the process of real etcd, whose database takes no such key.
func TestNamesThatNoSnapshotCouldHoldAreRefused(t *testing.T) {
	OnBoth(t, func(c *Case) {
		if c.Server.Real() {
			return
		}
		auth := pb.NewAuthClient(c.Conn)
		for _, length := range []int{32768, 32769} {
			name := strings.Repeat("n", length)
			_, role := auth.RoleAdd(c.Context(), &pb.AuthRoleAddRequest{Name: name})
			_, user := auth.UserAdd(c.Context(), &pb.AuthUserAddRequest{Name: name, Options: &authpb.UserAddOptions{NoPassword: true}})
			want := codes.OK
			if length > 32768 {
				want = codes.InvalidArgument
			}
			if status.Code(role) != want || status.Code(user) != want {
				c.Errorf("%d bytes: role %v, user %v", length, role, user)
			}
		}
		stream, err := c.Maintenance.Snapshot(c.Context(), &pb.SnapshotRequest{})
		for err == nil {
			_, err = stream.Recv()
		}
		if err != io.EOF {
			c.Errorf("a snapshot with long names: %v", err)
		}
	})
}
