package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The keys of the Secret. cert-manager writes the same ones, except for caKeyFile.
const (
	// bundleFile holds the authorities that the API server must trust, the current one first.
	bundleFile = "ca.crt"
	caKeyFile  = "ca.key"
	certFile   = corev1.TLSCertKey
	keyFile    = corev1.TLSPrivateKeyKey
)

// newAuthority creates an authority.
func newAuthority(now time.Time, lifetime time.Duration) (certificate, error) {
	return sign(x509.Certificate{
		Subject:        pkix.Name{CommonName: "taskflow"},
		NotAfter:       now.Add(lifetime),
		IsCA:           true,
		KeyUsage:       x509.KeyUsageCertSign,
		MaxPathLenZero: true,
	}, now, nil)
}

// issue returns a certificate for these DNS names, and its key, both in PEM.
func issue(authority certificate, names []string, now time.Time, lifetime time.Duration) (cert, key []byte, err error) {
	end := now.Add(lifetime)
	if end.After(authority.Leaf.NotAfter) {
		end = authority.Leaf.NotAfter
	}
	signed, err := sign(x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0]},
		NotAfter:    end,
		DNSNames:    names,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, now, authority)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(signed)
	return encodeCerts(signed.Leaf), key, err
}

// sign creates a key and its certificate. Without an authority, the certificate is self-signed.
func sign(template x509.Certificate, now time.Time, authority certificate) (certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.NotBefore = now.Add(-backdated)
	template.BasicConstraintsValid = true
	if authority == nil {
		authority = &tls.Certificate{Leaf: &template, PrivateKey: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, authority.Leaf, key.Public(), authority.PrivateKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Leaf: leaf, PrivateKey: key}, err
}

// parseAuthority reads the current authority, and all that must be trusted. It returns the latter even if the former is missing.
func parseAuthority(data map[string][]byte) (certificate, []*x509.Certificate, error) {
	bundle := parseCerts(data[bundleFile])
	if len(bundle) == 0 {
		return nil, nil, fmt.Errorf("%s holds no certificate", bundleFile)
	}
	authority, err := parsePair(data, bundleFile, caKeyFile)
	if err == nil && !authority.Leaf.IsCA {
		err = fmt.Errorf("the first certificate in %s is not an authority", bundleFile)
	}
	return authority, bundle, err
}

// parseServed reads the serving certificate with its key.
func parseServed(data map[string][]byte) (certificate, error) {
	return parsePair(data, certFile, keyFile)
}

// parsePair reads a certificate and its key. Its errors do not repeat the key.
func parsePair(data map[string][]byte, certFile, keyFile string) (certificate, error) {
	pair, err := tls.X509KeyPair(data[certFile], data[keyFile])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	return &pair, nil
}

// isTrusted reports whether the authorities vouch for the certificate with all these names at this time.
func isTrusted(bundle []*x509.Certificate, served certificate, names []string, now time.Time) bool {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range bundle {
		roots.AddCert(cert)
	}
	for _, der := range served.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(cert)
		}
	}
	return !slices.ContainsFunc(names, func(name string) bool {
		_, err := served.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: intermediates, CurrentTime: now})
		return err != nil
	})
}

// parseCerts skips what is not a certificate.
func parseCerts(content []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for len(content) > 0 {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			certs = append(certs, cert)
		}
	}
	return certs
}

func encodeCerts(certs ...*x509.Certificate) []byte {
	var content bytes.Buffer
	for _, cert := range certs {
		content.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return content.Bytes()
}

func encodeKey(c certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
