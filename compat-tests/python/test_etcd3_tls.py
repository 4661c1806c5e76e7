"""Scripts with TLS, users and passwords as people write them with python etcd3, on both servers."""

import os
import queue

import etcd3
import grpc
import pytest
import trustme
from etcd3 import etcdrpc, exceptions
from server import KINDS, Server

# Hashing passwords is fast then.
CHEAP = ("--bcrypt-cost", "4")


class Files:
    """A CA and what it signed, by the paths that flags and clients name."""

    def __init__(self, folder):
        self.folder, self.authority = folder, trustme.CA()
        self.ca = self._write("ca.pem", self.authority.cert_pem)
        self.cert, self.key = self.issue("server")

    def _write(self, name, blob):
        path = os.path.join(self.folder, name)
        blob.write_to_path(path)
        return path

    def issue(self, name):
        """The paths of a certificate with this common name, and of its key."""
        made = self.authority.issue_cert("127.0.0.1", "localhost", common_name=name)
        return (self._write(f"{name}.pem", made.cert_chain_pems[0]),
                self._write(f"{name}.key", made.private_key_pem))

    def flags(self):
        return ("--listen-client-urls", "https://<client>", "--cert-file", self.cert, "--key-file", self.key)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=KINDS)
def start(request):
    """Starts servers of each kind."""
    running = []

    def started(*flags):
        running.append(Server(request.param, *flags))
        return running[-1]

    yield started
    for server in running:
        server.close()


def connect(server, files, **options):
    return etcd3.client(host=server.host, port=server.port, ca_cert=files.ca, timeout=10, **options)


def with_certificate(server, files, name):
    cert, key = files.issue(name)
    return connect(server, files, cert_cert=cert, cert_key=key)


def set_up_users(client):
    """root, and alice who has the keys below /a/."""
    auth = etcdrpc.AuthStub(client.channel)
    for name in ("root", "alice"):
        auth.UserAdd(etcdrpc.AuthUserAddRequest(name=name, password=f"pw-{name}"))
        auth.RoleAdd(etcdrpc.AuthRoleAddRequest(name=name))
        auth.UserGrantRole(etcdrpc.AuthUserGrantRoleRequest(user=name, role=name))
    permission = etcdrpc.auth__pb2.Permission(permType=etcdrpc.auth__pb2.Permission.READWRITE,
                                              key=b"/a/", range_end=b"/a0")
    auth.RoleGrantPermission(etcdrpc.AuthRoleGrantPermissionRequest(name="alice", perm=permission))
    auth.AuthEnable(etcdrpc.AuthEnableRequest())


def refused(call):
    with pytest.raises(grpc.RpcError) as failure:
        call()
    return failure.value.code(), failure.value.details()


DENIED = (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")


def test_everything_goes_over_tls(start, files):
    server = start(*files.flags())
    with connect(server, files) as client:
        heard = queue.Queue()
        watch = client.add_watch_callback("/w", heard.put)
        client.put("/w", "1")
        assert heard.get(timeout=10).events[0].value == b"1"
        client.cancel_watch(watch)
        lease = client.lease(60)
        client.put("/leased", "1", lease=lease)
        assert lease.refresh()[0].TTL == 60
        lease.revoke()
        assert client.get("/leased") == (None, None)
        with client.lock("name", ttl=10) as lock:
            assert lock.is_acquired()
        large = b"v" * (1 << 20)
        client.put("/large", large)
        assert client.get("/large")[0] == large
        assert [member.name for member in client.members] == ["default"]


def test_a_client_without_tls_or_with_another_ca_does_not_get_in(start, files, tmp_path):
    server = start(*files.flags())
    with etcd3.client(host=server.host, port=server.port, timeout=5) as plain:
        with pytest.raises(exceptions.Etcd3Exception):
            plain.get("/a")
    with connect(server, Files(tmp_path)) as stranger:
        with pytest.raises(exceptions.ConnectionFailedError):
            stranger.get("/a")
    with connect(server, files) as client:
        assert client.get("/a") == (None, None)


def test_users_do_what_their_roles_allow(start, files):
    server = start(*files.flags(), *CHEAP)
    with connect(server, files) as client:
        set_up_users(client)
        code, text = refused(lambda: client.get("/a/1"))
        assert (code, text) == (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty")
    with connect(server, files, user="root", password="pw-root") as root:
        root.put("/b", "root's")
    with connect(server, files, user="alice", password="pw-alice") as alice:
        alice.put("/a/1", "one")
        assert alice.get("/a/1")[0] == b"one"
        assert [value for value, _ in alice.get_prefix("/a/")] == [b"one"]
        assert refused(lambda: alice.get("/b")) == DENIED
        assert refused(lambda: alice.put("/b", "alice's")) == DENIED
        assert refused(lambda: list(alice.get_all())) == DENIED
        t = alice.transactions
        assert refused(lambda: alice.transaction(compare=[], success=[t.put("/a/2", "2"), t.get("/b")], failure=[])) == DENIED
        assert alice.get("/a/2") == (None, None)
        heard = queue.Queue()
        alice.add_watch_prefix_callback("/a/", heard.put)
        alice.put("/a/1", "two")
        assert heard.get(timeout=10).events[0].value == b"two"


def test_a_wrong_password_gives_no_client(start, files):
    server = start(*files.flags(), *CHEAP)
    with connect(server, files) as client:
        set_up_users(client)
    for user, password in (("alice", "pw-root"), ("alice", ""), ("nemo", "pw-nemo")):
        code, text = refused(lambda: connect(server, files, user=user, password=password))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert text == "etcdserver: authentication failed, invalid user ID or password"


def test_a_certificate_is_asked_for_and_its_name_is_the_user(start, files):
    server = start(*files.flags(), "--client-cert-auth", "--trusted-ca-file", files.ca, *CHEAP)
    with connect(server, files) as nobody:
        with pytest.raises(exceptions.ConnectionFailedError):
            nobody.get("/a/1")
    with with_certificate(server, files, "root") as root:
        set_up_users(root)
        root.put("/b", "root's")
    with with_certificate(server, files, "alice") as alice:
        alice.put("/a/1", "one")
        assert refused(lambda: alice.get("/b")) == DENIED
    with with_certificate(server, files, "stranger") as stranger:
        assert refused(lambda: stranger.get("/a/1")) == DENIED
