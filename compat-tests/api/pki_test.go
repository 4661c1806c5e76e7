package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// made is a certificate with its key and what a holder sends after it.
type made struct {
	cert *x509.Certificate
	key  crypto.Signer
	rest []*made
}

// change is a deviation from an ordinary certificate.
type change func(*x509.Certificate)

var lastSerial atomic.Int64

// ordinary is a certificate for clients and servers on loopback, valid now.
func ordinary(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(0x1000 + lastSerial.Add(1)),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
}

// authority makes it a CA.
func authority(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	c.ExtKeyUsage, c.DNSNames, c.IPAddresses = nil, nil, nil
}

func curve(c elliptic.Curve) crypto.Signer { return need(ecdsa.GenerateKey(c, rand.Reader)) }

func p256() crypto.Signer { return curve(elliptic.P256()) }

func rsaKey(bits int) crypto.Signer { return need(rsa.GenerateKey(rand.Reader, bits)) }

func edKey() crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func need[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// root signs itself.
func root(name string, key crypto.Signer, changes ...change) *made {
	template := ordinary(name)
	authority(template)
	for _, apply := range changes {
		apply(template)
	}
	der := need(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return &made{cert: need(x509.ParseCertificate(der)), key: key}
}

// sign makes a certificate that m has signed. Its holder sends m along unless m is a root.
func (m *made) sign(name string, key crypto.Signer, changes ...change) *made {
	template := ordinary(name)
	for _, apply := range changes {
		apply(template)
	}
	der := need(x509.CreateCertificate(rand.Reader, template, m.cert, key.Public(), m.key))
	signed := &made{cert: need(x509.ParseCertificate(der)), key: key}
	if string(m.cert.RawIssuer) != string(m.cert.RawSubject) {
		signed.rest = append([]*made{m}, m.rest...)
	}
	return signed
}

// alone is the certificate without what was sent after it.
func (m *made) alone() *made { return &made{cert: m.cert, key: m.key} }

// with sends these after it instead.
func (m *made) with(rest ...*made) *made { return &made{cert: m.cert, key: m.key, rest: rest} }

func (m *made) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Raw})
}

func (m *made) pair() *tls.Certificate {
	pair := &tls.Certificate{Certificate: [][]byte{m.cert.Raw}, PrivateKey: m.key}
	for _, next := range m.rest {
		pair.Certificate = append(pair.Certificate, next.cert.Raw)
	}
	return pair
}

// signSHA1 signs as nobody should.
func signSHA1(key crypto.Signer, message []byte) ([]byte, error) {
	digest := sha1.Sum(message)
	return key.Sign(rand.Reader, digest[:], crypto.SHA1)
}

// revoke is a CRL in DER of these certificates.
func (m *made) revoke(revoked ...*made) []byte {
	list := &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
	}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: time.Now()})
	}
	return need(x509.CreateRevocationList(rand.Reader, list, m.cert, m.key))
}

// folder holds the files of one test's servers.
type folder struct {
	testing.TB
	path string
}

func newFolder(t testing.TB) folder { return folder{t, t.TempDir()} }

func (f folder) write(name string, content []byte) string {
	f.Helper()
	path := filepath.Join(f.path, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		f.Fatal(err)
	}
	return path
}

// serverPair writes a certificate and its key in PKCS #8 and returns the flags that name them.
func (f folder) serverPair(m *made) []string {
	f.Helper()
	key := need(x509.MarshalPKCS8PrivateKey(m.key))
	return []string{
		"--cert-file=" + f.write("cert.pem", m.pem()),
		"--key-file=" + f.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	}
}

func (f folder) authorities(trusted ...*made) string {
	f.Helper()
	var all []byte
	for _, m := range trusted {
		all = append(all, m.pem()...)
	}
	return f.write("ca.pem", all)
}
