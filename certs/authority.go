package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
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

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthority creates an authority.
func newAuthority(now time.Time, lifetime time.Duration) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template, err := template("taskflow", now, now.Add(lifetime))
	if err != nil {
		return authority{}, err
	}
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign
	template.MaxPathLenZero = true
	cert, err := sign(template, template, key.Public(), key)
	return authority{cert: cert, key: key}, err
}

// issue returns a certificate for these DNS names, and its key, both in PEM.
func (a authority) issue(names []string, now time.Time, lifetime time.Duration) (cert, key []byte, err error) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	end := now.Add(lifetime)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	template, err := template(names[0], now, end)
	if err != nil {
		return nil, nil, err
	}
	template.DNSNames = names
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	signed, err := sign(template, a.cert, signer.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(signer)
	return encodeCerts(signed), key, err
}

func template(name string, now, end time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdated),
		NotAfter:              end,
		BasicConstraintsValid: true,
	}, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// parseAuthority reads the current authority, and all that must be trusted. It returns the latter even if the former is missing.
func parseAuthority(data map[string][]byte) (authority, []*x509.Certificate, error) {
	bundle := parseCerts(data[bundleFile])
	if len(bundle) == 0 {
		return authority{}, nil, fmt.Errorf("%s holds no certificate", bundleFile)
	}
	key, err := parseKey(data[caKeyFile])
	if err != nil {
		return authority{}, bundle, fmt.Errorf("%s: %w", caKeyFile, err)
	}
	a := authority{cert: bundle[0], key: key}
	public, ok := key.Public().(interface {
		Equal(other crypto.PublicKey) bool
	})
	if !ok || !public.Equal(a.cert.PublicKey) {
		return authority{}, bundle, fmt.Errorf("%s is not the key of the first certificate in %s", caKeyFile, bundleFile)
	}
	if !a.cert.IsCA {
		return authority{}, bundle, fmt.Errorf("the first certificate in %s is not an authority", bundleFile)
	}
	return a, bundle, nil
}

// parseServed reads the serving certificate with its key.
func parseServed(data map[string][]byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(data[certFile], data[keyFile])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	return &pair, nil
}

// isTrusted reports whether the authorities vouch for the certificate with all these names at this time.
func isTrusted(bundle []*x509.Certificate, served *tls.Certificate, names []string, now time.Time) bool {
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

func parseKey(content []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, errors.New("holds no key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("holds no key in PKCS #8") // without the cause, which could repeat the content
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("holds a key that cannot sign")
	}
	return signer, nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
