package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// identities are the cluster's clients and servers, by the names of their files. The organizations are groups in Kubernetes' RBAC.
var identities = []struct {
	file         string
	commonName   string
	organization string
}{
	{file: "apiserver", commonName: "kube-apiserver"},
	{file: "apiserver-kubelet", commonName: "kube-apiserver-kubelet-client", organization: "system:masters"},
	{file: "admin", commonName: "kubernetes-admin", organization: "system:masters"},
	{file: "controller-manager", commonName: "system:kube-controller-manager"},
	{file: "scheduler", commonName: "system:kube-scheduler"},
	{file: "proxy", commonName: "system:kube-proxy"},
	{file: "kubelet", commonName: "system:node:" + nodeName, organization: "system:nodes"},
}

// makePKI writes into dir a certificate authority (ca.crt), a key pair for each identity, and the key that signs ServiceAccount tokens
// (serviceaccount.key). All are valid for one year, and only for this cluster.
func makePKI(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	authority := certificate(1, pkix.Name{CommonName: "taskflow test cluster"})
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	if err := writeCertificate(dir, "ca", authority, authority, authorityKey, authorityKey); err != nil {
		return err
	}
	for i, id := range identities {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		name := pkix.Name{CommonName: id.commonName}
		if id.organization != "" {
			name.Organization = []string{id.organization}
		}
		leaf := certificate(int64(i+2), name)
		leaf.KeyUsage = x509.KeyUsageDigitalSignature
		leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		leaf.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
		leaf.IPAddresses = []net.IP{net.ParseIP(nodeAddress), net.ParseIP(apiServerIP), net.ParseIP("127.0.0.1")}
		if err := writeCertificate(dir, id.file, leaf, authority, key, authorityKey); err != nil {
			return err
		}
	}

	tokens, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, "serviceaccount.key"), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(tokens))
}

func certificate(serial int64, name pkix.Name) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      name,
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
	}
}

func writeCertificate(dir, name string, leaf, issuer *x509.Certificate, key, issuerKey *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, key.Public(), issuerKey)
	if err != nil {
		return fmt.Errorf("making the certificate %s: %w", name, err)
	}
	if err := writePEM(filepath.Join(dir, name+".crt"), "CERTIFICATE", der); err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, name+".key"), "EC PRIVATE KEY", keyDER)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
