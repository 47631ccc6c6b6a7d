package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMakePKI proves that the authority signed each identity as client and server, for all names and addresses of the API server, with its
// groups in Kubernetes' RBAC. Each private key belongs to its certificate, and only root can read the files.
func TestMakePKI(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if err := makePKI(dir); err != nil {
		t.Fatal(err)
	}
	ca := readCertificate(t, dir, "ca")
	if !ca.IsCA {
		t.Error("the authority's certificate isn't an authority's")
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)

	type subject struct {
		Name   string
		Groups []string
	}
	got := map[string]subject{}
	serials := map[string]string{ca.SerialNumber.String(): "ca"}
	for _, id := range identities {
		leaf := readCertificate(t, dir, id.file)
		got[id.file] = subject{leaf.Subject.CommonName, leaf.Subject.Organization}
		if leaf.IsCA {
			t.Errorf("%s is an authority", id.file)
		}
		if other, used := serials[leaf.SerialNumber.String()]; used {
			t.Errorf("%s and %s have one serial number", id.file, other)
		}
		serials[leaf.SerialNumber.String()] = id.file
		for _, host := range []string{nodeAddress, apiServerIP, "127.0.0.1", nodeName, "kubernetes.default.svc"} {
			for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
				options := x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage}}
				if _, err := leaf.Verify(options); err != nil {
					t.Errorf("%s for %s: %v", id.file, host, err)
				}
			}
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Now().AddDate(0, 11, 0)}); err != nil {
			t.Errorf("%s in eleven months: %v", id.file, err)
		}
		if _, err := tls.LoadX509KeyPair(filepath.Join(dir, id.file+".crt"), filepath.Join(dir, id.file+".key")); err != nil {
			t.Errorf("%s: %v", id.file, err)
		}
	}
	want := map[string]subject{
		"apiserver":          {"kube-apiserver", nil},
		"apiserver-kubelet":  {"kube-apiserver-kubelet-client", []string{"system:masters"}},
		"admin":              {"kubernetes-admin", []string{"system:masters"}},
		"controller-manager": {"system:kube-controller-manager", nil},
		"scheduler":          {"system:kube-scheduler", nil},
		"proxy":              {"system:kube-proxy", nil},
		"kubelet":            {"system:node:localhost", []string{"system:nodes"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}

	tokens := readPEM(t, filepath.Join(dir, "serviceaccount.key"))
	if _, err := x509.ParsePKCS1PrivateKey(tokens); err != nil {
		t.Errorf("the key of the ServiceAccount tokens: %v", err)
	}
	for _, file := range filesBelow(t, dir) {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has the mode %o, want 600", file, mode)
		}
	}
}

func readCertificate(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	certificate, err := x509.ParseCertificate(readPEM(t, filepath.Join(dir, name+".crt")))
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func readPEM(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(content)
	if block == nil || len(rest) > 0 {
		t.Fatalf("%s isn't one PEM block", file)
	}
	return block.Bytes
}
