package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// keys are the certificates and keys of one cluster, made for it. Two authorities, as in a cluster that
// kubeadm made: one for the apiserver and its users, one for the store and its clients.
type keys struct {
	dir string
	// kube signs the apiserver's certificate and its users'.
	kube *authority
	// store signs the store's certificate and its clients'.
	store *authority
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

// pair is a certificate with its key, in memory and in files.
type pair struct {
	tls               tls.Certificate
	certFile, keyFile string
}

func makeKeys(t testing.TB, dir string) *keys {
	t.Helper()
	k := &keys{dir: dir}
	k.kube, k.store = k.authority(t, "kube-ca"), k.authority(t, "store-ca")
	accounts := k.newKey(t)
	k.write(t, "accounts.key", "PRIVATE KEY", need(x509.MarshalPKCS8PrivateKey(accounts)))
	k.write(t, "accounts.pub", "PUBLIC KEY", need(x509.MarshalPKIXPublicKey(&accounts.PublicKey)))
	return k
}

// file is the path of one of the files.
func (k *keys) file(name string) string { return filepath.Join(k.dir, name) }

func (k *keys) authority(t testing.TB, name string) *authority {
	t.Helper()
	template := template(name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageCertSign, nil
	template.IPAddresses, template.DNSNames = nil, nil
	key := k.newKey(t)
	der := need(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	file := k.write(t, name+".crt", "CERTIFICATE", der)
	return &authority{cert: need(x509.ParseCertificate(der)), key: key, file: file}
}

// pair makes a certificate of this name, good for a server on loopback and for a client.
func (k *keys) pair(t testing.TB, by *authority, name string, groups ...string) pair {
	t.Helper()
	return k.pairOf(t, by, name, name, groups...)
}

// pairOf makes one whose files have another name than its subject.
func (k *keys) pairOf(t testing.TB, by *authority, name, subject string, groups ...string) pair {
	t.Helper()
	template := template(subject)
	template.Subject.Organization = groups
	key := k.newKey(t)
	der := need(x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key))
	return pair{
		tls:      tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		certFile: k.write(t, name+".crt", "CERTIFICATE", der),
		keyFile:  k.write(t, name+".key", "PRIVATE KEY", need(x509.MarshalPKCS8PrivateKey(key))),
	}
}

// trusting is what a client with this certificate needs to talk to servers that `by` has signed.
func trusting(by *authority, own pair) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(by.cert)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own.tls}}
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: need(rand.Int(rand.Reader, big.NewInt(1<<62))),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
}

func (k *keys) newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return need(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

func (k *keys) write(t testing.TB, name, kind string, der []byte) string {
	t.Helper()
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(k.file(name), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return k.file(name)
}

func need[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
