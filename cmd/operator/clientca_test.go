package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clientCertificate creates a client certificate, and a file with the CA that signed it.
func clientCertificate(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			BasicConstraintsValid: true,
		}
	}
	authority, client := template("authority"), template(name)
	authority.IsCA, authority.KeyUsage = true, x509.KeyUsageCertSign
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	signer, err := x509.CreateCertificate(rand.Reader, authority, authority, keys[0].Public(), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.CreateCertificate(rand.Reader, client, authority, keys[1].Public(), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signer}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: keys[1]}, file
}

// TestClientCertificate proves that --webhook-client-ca refuses clients without a certificate, with one of another CA, and with another
// common name.
func TestClientCertificate(t *testing.T) {
	api, file := clientCertificate(t, "apiserver")
	stranger, _ := clientCertificate(t, "apiserver")
	for name, c := range map[string]struct {
		clients     clientCA
		certificate *tls.Certificate
		ok          bool
	}{
		"none is required":    {clientCA{}, nil, true},
		"the API server's":    {clientCA{file: file}, &api, true},
		"of the name":         {clientCA{file: file, name: "apiserver"}, &api, true},
		"of another name":     {clientCA{file: file, name: "other"}, &api, false},
		"none":                {clientCA{file: file}, nil, false},
		"another authority's": {clientCA{file: file}, &stranger, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
			if err := c.clients.require(server.TLS); err != nil {
				t.Fatal(err)
			}
			server.StartTLS()
			defer server.Close()
			client := server.Client()
			if c.certificate != nil {
				client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{*c.certificate}
			}
			response, err := client.Post(server.URL, "application/json", http.NoBody)
			if err == nil {
				_ = response.Body.Close()
			}
			if (err == nil) != c.ok {
				t.Errorf("the call: %v, want it to succeed: %t", err, c.ok)
			}
		})
	}
}

// TestClientCAIsChecked proves the errors for unusable flags.
func TestClientCAIsChecked(t *testing.T) {
	nonsense := filepath.Join(t.TempDir(), "nonsense")
	if err := os.WriteFile(nonsense, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, clients := range map[string]clientCA{
		"--webhook-client-name requires --webhook-client-ca":           {name: "apiserver"},
		"--webhook-client-ca cannot be read: mount the file":           {file: nonsense + "x"},
		"--webhook-client-ca " + nonsense + " contains no certificate": {file: nonsense},
	} {
		if err := clients.require(&tls.Config{MinVersion: tls.VersionTLS12}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
	}
}
