package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// clientCA says which clients may call the webhook: those with a certificate that the authorities of the file vouch for.
type clientCA struct {
	file string // empty: no certificate is asked for
	name string // the certificate's common name; empty: any
}

// require makes a server ask for the certificate. It fails with one sentence if the file is of no use.
func (c clientCA) require(settings *tls.Config) error {
	if c.file == "" {
		if c.name != "" {
			return errors.New("--webhook-client-name needs --webhook-client-ca: set it to a file with the authority that signs the API server's client certificate")
		}
		return nil
	}
	content, err := os.ReadFile(c.file)
	if err != nil {
		return fmt.Errorf("--webhook-client-ca can't be read: mount the file, or correct its path: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return fmt.Errorf("--webhook-client-ca %s has no certificate in PEM: set it to a file with the authority that signs the API server's client certificate", c.file)
	}
	settings.ClientAuth, settings.ClientCAs = tls.RequireAndVerifyClientCert, pool
	if c.name != "" {
		settings.VerifyConnection = func(state tls.ConnectionState) error {
			if got := state.PeerCertificates[0].Subject.CommonName; got != c.name {
				return fmt.Errorf("the client's certificate is for %q, not for %q", got, c.name)
			}
			return nil
		}
	}
	return nil
}
