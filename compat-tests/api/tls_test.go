package api

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	. "etched.local/compat-tests/harness"
)

// bothOnOne serves with and without TLS on the one client address.
const bothOnOne = "--listen-client-urls=http://<client>,https://<client>"

// trusting is a client's configuration that shows this certificate whatever the server asks for.
func trusting(server *made, client *made, version uint16) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(server.cert)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: version, MaxVersion: version}
	if client != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return client.pair(), nil
		}
	}
	return config
}

// getTLS asks for a path over TLS on a connection of its own.
func getTLS(c *Case, url string, config *tls.Config, http2 bool) (string, error) {
	c.Helper()
	client := http.Client{
		Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2, DisableKeepAlives: true},
		Timeout:   Deadline,
	}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return fmt.Sprintf("%s %s %s", answer.Proto, answer.Status, body), err
}

// verdict is whether a client with this certificate is let in.
func verdict(c *Case, server, client *made, version uint16) string {
	c.Helper()
	_, err := getTLS(c, "https://"+c.Server.Client+"/health", trusting(server, client, version), false)
	if err == nil {
		return "accepted"
	}
	if c.Server.Alive() && !strings.Contains(err.Error(), "Client.Timeout") {
		return "refused"
	}
	return err.Error()
}

// candidates are certificates of clients, ordinary and odd; the second result is what the CA file
// holds, the third the CRL.
func candidates() (map[string]*made, []*made, []byte) {
	ca, rsaCA := root("ca", p256()), root("rsa ca", rsaKey(2048))
	other, namesake := root("other", p256()), root("ca", p256())
	expiredCA := root("expired ca", p256(), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	noCA := root("no ca", p256(), func(c *x509.Certificate) { c.IsCA = false })
	noSigner := root("no signer", p256(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	serverCA := root("server ca", p256(), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	trustedLeaf := root("trusted leaf", p256(), func(c *x509.Certificate) { c.IsCA = false })
	trustedCA := root("trusted ca as leaf", p256())
	shallow := root("shallow", p256(), func(c *x509.Certificate) { c.MaxPathLenZero = true })
	oneDeep := root("one deep", p256(), func(c *x509.Certificate) { c.MaxPathLen = 1 })
	trusted := []*made{ca, rsaCA, expiredCA, noCA, noSigner, serverCA, trustedLeaf, trustedCA, shallow, oneDeep}

	middle := ca.sign("middle", p256(), authority)
	revokedMiddle := ca.sign("revoked middle", p256(), authority)
	usage := func(usages ...x509.ExtKeyUsage) change {
		return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
	}
	serial := func(number *big.Int) change { return func(c *x509.Certificate) { c.SerialNumber = number } }
	constrained := func(name string, apply change) *made {
		return ca.sign(name, p256(), authority, apply, func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = true })
	}
	extension := func(critical bool) change {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: critical, Value: []byte{5, 0}}}
		}
	}
	all := map[string]*made{
		"ordinary": ca.sign("ordinary", p256()), "none": nil,
		"key P-384": ca.sign("a", curve(elliptic.P384())), "key P-521": ca.sign("a", curve(elliptic.P521())),
		"key Ed25519": ca.sign("a", edKey()), "key RSA-1024": ca.sign("a", rsaKey(1024)),
		"key RSA-2048": ca.sign("a", rsaKey(2048)), "key RSA-3072": ca.sign("a", rsaKey(3072)),
		"key RSA-4096": ca.sign("a", rsaKey(4096)), "key P-224": ca.sign("a", curve(elliptic.P224())),

		"usage none": ca.sign("a", p256(), usage()), "usage server": ca.sign("a", p256(), usage(x509.ExtKeyUsageServerAuth)),
		"usage client":               ca.sign("a", p256(), usage(x509.ExtKeyUsageClientAuth)),
		"usage any":                  ca.sign("a", p256(), usage(x509.ExtKeyUsageAny)),
		"usage code":                 ca.sign("a", p256(), usage(x509.ExtKeyUsageCodeSigning)),
		"usage no digital signature": ca.sign("a", p256(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }),

		"names CN only":  ca.sign("cn-only", p256(), func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }),
		"names nothing":  ca.sign("", p256(), func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }),
		"names IP":       ca.sign("a", p256(), func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(192, 0, 2, 1)} }),
		"names wildcard": ca.sign("a", p256(), func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"*.example"}, nil }),
		"names URI":      ca.sign("a", p256(), func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "a", Path: "/b"}} }),
		"names mail":     ca.sign("a", p256(), func(c *x509.Certificate) { c.EmailAddresses = []string{"a@example"} }),

		"time expired": ca.sign("a", p256(), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		"time not yet": ca.sign("a", p256(), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }),

		"ca other": other.sign("a", p256()), "ca of the same name": namesake.sign("a", p256()),
		"ca expired": expiredCA.sign("a", p256()), "ca that is none": noCA.sign("a", p256()),
		"ca without signing": noSigner.sign("a", p256()), "ca for servers": serverCA.sign("a", p256()),
		"self-signed":         root("a", p256(), func(c *x509.Certificate) { c.IsCA = false }),
		"leaf trusted itself": trustedLeaf, "leaf is a trusted CA": trustedCA, "leaf is the CA": ca,
		"leaf is a CA": ca.sign("a", p256(), authority),

		"middle sent": middle.sign("a", p256()), "middle missing": middle.sign("a", p256()).alone(),
		"middle is no CA": ca.sign("no ca", p256()).sign("a", p256()),
		"middle without signing": ca.sign("no signer", p256(), authority, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageDigitalSignature
		}).sign("a", p256()),
		"middle for servers": ca.sign("servers", p256(), authority, usage(x509.ExtKeyUsageServerAuth)).sign("a", p256()),
		"middle too deep": ca.sign("short", p256(), authority, func(c *x509.Certificate) { c.MaxPathLenZero = true }).
			sign("deep", p256(), authority).sign("a", p256()),
		"root's depth 0, none":  shallow.sign("a", p256()),
		"root's depth 0, one":   shallow.sign("m", p256(), authority).sign("a", p256()),
		"root's depth 1, one":   oneDeep.sign("m", p256(), authority).sign("a", p256()),
		"root's depth 1, two":   oneDeep.sign("m1", p256(), authority).sign("m2", p256(), authority).sign("a", p256()),
		"middle with strangers": middle.sign("a", p256()).with(other, ca, middle),
		"middle expired": ca.sign("old", p256(), authority, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		}).sign("a", p256()),

		"constraint kept": constrained("c1", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"localhost"} }).
			sign("a", p256(), func(c *x509.Certificate) { c.IPAddresses = nil }),
		"constraint broken":   constrained("c2", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} }).sign("a", p256()),
		"constraint excluded": constrained("c3", func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"localhost"} }).sign("a", p256()),
		"constraint address": constrained("c4", func(c *x509.Certificate) {
			c.PermittedIPRanges = []*net.IPNet{{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}}
		}).sign("a", p256()),

		"signature RSA":           rsaCA.sign("a", p256()),
		"signature RSA-PSS":       rsaCA.sign("a", p256(), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }),
		"signature RSA SHA-384":   rsaCA.sign("a", p256(), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA384WithRSA }),
		"signature RSA SHA-512":   rsaCA.sign("a", p256(), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA512WithRSA }),
		"signature ECDSA SHA-384": ca.sign("a", p256(), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 }),
		"signature ECDSA SHA-512": ca.sign("a", p256(), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA512 }),
		"signature SHA-1":         sha1Signed(rsaCA, "a"),

		"extension unknown": ca.sign("a", p256(), extension(false)), "extension unknown critical": ca.sign("a", p256(), extension(true)),
		"serial long": ca.sign("a", p256(), serial(new(big.Int).Lsh(big.NewInt(1), 157))),
	}
	revoked, high := ca.sign("revoked", p256()), ca.sign("revoked", p256(), serial(big.NewInt(0x80ff)))
	all["revoked"], all["revoked with high bit"] = revoked, high
	all["revoked middle"] = revokedMiddle.sign("a", p256())
	all["revoked under another CA"] = rsaCA.sign("a", p256(), serial(revoked.cert.SerialNumber))
	return all, trusted, ca.revoke(revoked, high, revokedMiddle)
}

// sha1Signed is a certificate whose signature Go does not make any more, so that it is put together here.
func sha1Signed(ca *made, name string) *made {
	strong := ca.sign(name, p256())
	var parts struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(strong.cert.Raw, &parts); err != nil {
		panic(err)
	}
	sha256RSA := need(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}))
	sha1RSA := need(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}))
	tbs := []byte(strings.Replace(string(parts.TBS.FullBytes), string(sha256RSA), string(sha1RSA), 1))
	parts.TBS = asn1.RawValue{FullBytes: tbs}
	parts.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}
	signature := need(signSHA1(ca.key, tbs))
	parts.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	return &made{cert: need(x509.ParseCertificate(need(asn1.Marshal(parts)))), key: strong.key}
}

func TestCertificatesOfClientsAreJudgedAlike(t *testing.T) {
	files, serverCA := newFolder(t), root("server ca", p256())
	clients, trusted, revoked := candidates()
	flags := append(files.serverPair(serverCA.sign("server", p256())), bothOnOne, "--client-cert-auth",
		"--trusted-ca-file="+files.authorities(trusted...), "--client-crl-file="+files.write("crl", revoked))
	OnBoth(t, func(c *Case) {
		for name, client := range clients {
			for version, words := range map[uint16]string{tls.VersionTLS12: "TLS 1.2", tls.VersionTLS13: "TLS 1.3"} {
				c.NoteUnder(words+" "+name, verdict(c, serverCA, client, version))
			}
		}
		// A test that accepts or refuses everything would agree, too.
		if is := verdict(c, serverCA, clients["ordinary"], tls.VersionTLS13); is != "accepted" {
			c.Errorf("an ordinary client is %s", is)
		}
		if is := verdict(c, serverCA, clients["ca other"], tls.VersionTLS13); is != "refused" {
			c.Errorf("a client of another CA is %s", is)
		}
	}, flags...)
}

func TestOnlyAllowedHostNamesComeIn(t *testing.T) {
	files, ca := newFolder(t), root("ca", p256())
	flags := append(files.serverPair(ca.sign("server", p256())), bothOnOne, "--trusted-ca-file="+files.authorities(ca),
		"--client-cert-allowed-hostname=a.example,192.0.2.1,b.c.example")
	names := func(dns []string, addresses ...net.IP) *made {
		return ca.sign("a.example", p256(), func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = dns, addresses })
	}
	clients := map[string]*made{
		"none": nil, "no names": names(nil), "one": names([]string{"x", "a.example"}), "case": names([]string{"A.Example"}),
		"wildcard": names([]string{"*.example"}), "wildcard of one label": names([]string{"*.c.example"}),
		"wildcard inside": names([]string{"b.*.example"}), "dot": names([]string{"a.example."}),
		"other": names([]string{"z.example"}), "address": names(nil, net.IPv4(192, 0, 2, 1)),
		"other address": names(nil, net.IPv4(192, 0, 2, 2)), "address as name": names([]string{"192.0.2.1"}),
	}
	OnBoth(t, func(c *Case) {
		for name, client := range clients {
			c.NoteUnder(name, verdict(c, ca, client, tls.VersionTLS13))
		}
	}, flags...)
}

func TestOnePortSpeaksEverythingOverTls(t *testing.T) {
	files, ca := newFolder(t), root("ca", p256())
	flags := append(files.serverPair(ca.sign("server", p256())), bothOnOne, "--host-whitelist=nobody.example")
	OnBoth(t, func(c *Case) {
		base := "https://" + c.Server.Client
		config := func() *tls.Config { return trusting(ca, nil, 0) }
		for _, path := range []string{"/health", "/nope", "/members", "/livez", "/v2/keys"} {
			for _, http2 := range []bool{false, true} {
				answer, err := getTLS(c, base+path, config(), http2)
				c.Note(fmt.Sprintf("%s HTTP/2 %v", path, http2), fmt.Sprint(answer, err))
			}
		}
		for _, protocols := range [][]string{nil, {"h2"}, {"http/1.1"}, {"http/1.1", "h2"}, {"strange"}, {"strange", "h2"}} {
			offer := config()
			offer.NextProtos = protocols
			conn, err := tls.Dial("tcp", c.Server.Client, offer)
			c.Notef(fmt.Sprintf("protocols %v", protocols), "refused %v", err != nil)
			if err == nil {
				conn.Close()
			}
		}
		// The way without TLS has the whitelist, the one with TLS has not.
		answer, body := request(c, "GET", "/health")
		c.Note("plain", fmt.Sprint(answer.Status, body))
		conn := c.Server.Dial(c, grpc.WithTransportCredentials(credentials.NewTLS(config())))
		Ask(c, "put over TLS", pb.NewKVClient(conn).Put, &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 1<<20)})
		Ask(c, "range over TLS", pb.NewKVClient(conn).Range, &pb.RangeRequest{Key: []byte("a")})
		Ask(c, "range without", c.KV.Range, &pb.RangeRequest{Key: []byte("a"), KeysOnly: true})
	}, flags...)
}

func TestVersionsAndCipherSuitesAreAsTheFlagsSay(t *testing.T) {
	files, ca := newFolder(t), root("ca", p256())
	pair := files.serverPair(ca.sign("server", rsaKey(2048)))
	suites := []uint16{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	}
	for name, rules := range map[string][]string{
		"defaults": nil, "at least 1.3": {"--tls-min-version=TLS1.3"}, "at most 1.2": {"--tls-max-version=TLS1.2"},
		"one suite":  {"--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
		"old name":   {"--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"},
		"other kind": {"--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
	} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
					c.Note(tls.VersionName(version), verdict(c, ca, nil, version))
				}
				for _, suite := range suites {
					config := trusting(ca, nil, tls.VersionTLS12)
					config.CipherSuites = []uint16{suite}
					_, err := getTLS(c, "https://"+c.Server.Client+"/health", config, false)
					c.Notef(tls.CipherSuiteName(suite), "refused %v", err != nil)
				}
			}, append(append([]string{bothOnOne}, pair...), rules...)...)
		})
	}
}

func TestChangedCertificateAndCrlArePickedUp(t *testing.T) {
	ca, other, clientCA, newCA := root("ca", p256()), root("other", p256()), root("client ca", p256()), root("new ca", p256())
	client := clientCA.sign("client", p256())
	// Each server has files of its own, by its data dir, because they change.
	OnBoth(t, func(c *Case) {
		files := newFolder(c)
		flags := append(files.serverPair(ca.sign("server", p256())), bothOnOne, "--trusted-ca-file="+files.authorities(clientCA),
			"--client-crl-file="+files.write("crl", clientCA.revoke()))
		server := Start(c, c.Server.Kind, flags...)
		is := func(step string, server_ca, client *made) {
			c.Helper()
			_, err := getTLS(c, "https://"+server.Client+"/health", trusting(server_ca, client, tls.VersionTLS13), false)
			c.Notef(step, "refused %v", err != nil)
		}
		is("at first", ca, client)
		files.serverPair(other.sign("server", p256()))
		is("new certificate, client that trusts the new CA", other, client)
		is("new certificate, client that trusts the old CA", ca, client)
		files.write("crl", clientCA.revoke(client))
		is("revoked", other, client)
		files.write("crl", clientCA.revoke())
		is("not revoked any more", other, client)
		files.authorities(newCA)
		is("client of the old CA", other, client)
		is("client of the new CA", other, newCA.sign("client", p256()))
	})
}

func TestCertificatesOfMembersAreComparedWithTheirAddress(t *testing.T) {
	files, ca := newFolder(t), root("ca", p256())
	pair := files.serverPair(ca.sign("server", p256()))
	flags := append(pair, "--trusted-ca-file="+files.authorities(ca), "--listen-peer-urls=https://<peer>")
	for _, flag := range pair {
		flags = append(flags, "--peer-"+strings.TrimPrefix(flag, "--"))
	}
	flags = append(flags, "--peer-trusted-ca-file="+files.authorities(ca))
	names := func(dns []string, addresses ...net.IP) *made {
		return ca.sign("a", p256(), func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = dns, addresses })
	}
	clients := map[string]*made{
		"none": nil, "no names": names(nil), "this address": names(nil, net.IPv4(127, 0, 0, 1)),
		"other address": names(nil, net.IPv4(192, 0, 2, 1)), "localhost": names([]string{"localhost"}),
		"other address, localhost": names([]string{"localhost"}, net.IPv4(192, 0, 2, 1)),
		"unknown name":             names([]string{"nowhere.invalid"}),
	}
	for name, more := range map[string][]string{"compared": nil, "not compared": {"--peer-skip-client-san-verification"}} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				for name, client := range clients {
					answer, err := getTLS(c, "https://"+c.Server.Peer+"/version", trusting(ca, client, tls.VersionTLS13), false)
					c.NoteUnder(name, fmt.Sprint(strings.Contains(answer, "200 OK"), err == nil))
				}
				answer, err := getTLS(c, "https://"+c.Server.Peer+"/nope", trusting(ca, clients["localhost"], tls.VersionTLS13), false)
				c.Note("unknown path", fmt.Sprint(answer, err))
			}, append(flags, more...)...)
		})
	}
}

func TestMetricsAndHttpAddressesSpeakTls(t *testing.T) {
	files, ca := newFolder(t), root("ca", p256())
	pair := append(files.serverPair(ca.sign("server", p256())), "--trusted-ca-file="+files.authorities(ca),
		"--listen-peer-urls=http://127.0.0.1:0", "--listen-client-urls=https://<client>")
	elsewhere := ca.sign("a", p256(), func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(192, 0, 2, 1)} })
	OnBoth(t, func(c *Case) {
		for _, flag := range []string{"--listen-metrics-urls", "--listen-client-http-urls"} {
			server := Start(c, c.Server.Kind, append(pair, flag+"=https://<peer>")...)
			for _, path := range []string{"/health", "/livez", "/nope"} {
				for name, client := range map[string]*made{"ordinary": ca.sign("a", p256()), "elsewhere": elsewhere, "none": nil} {
					for _, at := range []string{server.Client, server.Peer} {
						config := trusting(ca, client, tls.VersionTLS13)
						answer, err := getTLS(c, "https://"+at+path, config, false)
						where := map[bool]string{true: "client", false: "other"}[at == server.Client]
						// A port for gRPC alone answers HTTP/1 in a way of its own.
						if strings.HasSuffix(flag, "http-urls") && at == server.Client {
							answer = ""
						}
						c.NoteUnder(strings.Join([]string{flag, path, name, where}, " "), fmt.Sprint(answer, err != nil))
					}
				}
			}
			conn := server.Dial(c, grpc.WithTransportCredentials(credentials.NewTLS(trusting(ca, elsewhere, 0))))
			Ask(c, flag+" range", pb.NewKVClient(conn).Range, &pb.RangeRequest{Key: []byte("a")})
		}
	})
}

func TestGeneratedCertificatesServeAndAreUsedAgain(t *testing.T) {
	OnBoth(t, func(c *Case) {
		anyone := &tls.Config{InsecureSkipVerify: true}
		for _, side := range []string{"client", "peer"} {
			path := filepath.Join(c.Server.DataDir, "fixtures", side)
			text, err := os.ReadFile(filepath.Join(path, "cert.pem"))
			if err != nil {
				c.Fatal(err)
			}
			block, _ := pem.Decode(text)
			cert := need(x509.ParseCertificate(block.Bytes))
			c.Note(side, fmt.Sprintf("%v %v %v %v %v %v %v", cert.Subject, cert.DNSNames, cert.IPAddresses, cert.IsCA,
				cert.KeyUsage, cert.ExtKeyUsage, cert.NotAfter.Sub(cert.NotBefore)))
			info, err := os.Stat(filepath.Join(path, "key.pem"))
			c.Notef(side+" key", "%v %v", info.Mode(), err)
		}
		shown := func() string {
			conn, err := tls.Dial("tcp", c.Server.Client, anyone)
			if err != nil {
				c.Fatal(err)
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
		}
		before := shown()
		answer, err := getTLS(c, "https://"+c.Server.Peer+"/nope", anyone, false)
		c.Note("peer", fmt.Sprint(answer, err))
		c.Server.Stop(c)
		c.Server.Restart(c)
		c.Notef("the same after a restart", "%v", before == shown())
	}, bothOnOne, "--auto-tls", "--peer-auto-tls", "--listen-peer-urls=https://<peer>", "--self-signed-cert-validity=2")
}

func TestTheCommonNameOfACertificateIsTheUser(t *testing.T) {
	files, ca := newFolder(t), root("ca", p256())
	pair := append(files.serverPair(ca.sign("server", p256())), "--trusted-ca-file="+files.authorities(ca), bothOnOne)
	for name, more := range map[string][]string{"asked": {"--client-cert-auth"}, "CA alone": nil} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				auth := pb.NewAuthClient(c.Conn)
				for _, user := range []string{"root", "reader"} {
					Ask(c, "add "+user, auth.UserAdd, &pb.AuthUserAddRequest{Name: user, Password: "secret"})
				}
				Ask(c, "role", auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "root"})
				Ask(c, "grant", auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
				Ask(c, "enable", auth.AuthEnable, &pb.AuthEnableRequest{})
				for _, user := range []string{"root", "reader", "nobody", ""} {
					client := ca.sign(user, p256())
					conn := c.Server.Dial(c, grpc.WithTransportCredentials(credentials.NewTLS(trusting(ca, client, 0))))
					_, err := pb.NewKVClient(conn).Put(c.Context(), &pb.PutRequest{Key: []byte("a")})
					c.RecordError("put as "+user, err)
					_, err = pb.NewAuthClient(conn).UserList(c.Context(), &pb.AuthUserListRequest{})
					c.RecordError("list as "+user, err)
					for _, path := range []string{"/v3/kv/range", "/v3/nope", "/health"} {
						answer, err := getTLS(c, "https://"+c.Server.Client+path, trusting(ca, client, 0), true)
						// Go puts a space after a comma, or none, by the build.
						c.Note(path+" as "+user, fmt.Sprint(strings.ReplaceAll(answer, `, "`, `,"`), err))
					}
				}
			}, append(pair, more...)...)
		})
	}
}
