package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// clientCA restricts the webhook's clients to those with a certificate from these authorities.
type clientCA struct {
	file string // empty: no certificate is required
	name string // required common name; empty: any
}

// require makes a server require the certificate. It returns one sentence if the file is unusable.
func (c clientCA) require(settings *tls.Config) error {
	if c.file == "" {
		if c.name != "" {
			return errors.New("--webhook-client-name requires --webhook-client-ca: set it to a file with the CA of the API server's client certificate")
		}
		return nil
	}
	content, err := os.ReadFile(c.file)
	if err != nil {
		return fmt.Errorf("--webhook-client-ca cannot be read: mount the file, or fix its path: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return fmt.Errorf("--webhook-client-ca %s contains no certificate in PEM: set it to a file with the CA of the API server's client certificate", c.file)
	}
	settings.ClientAuth, settings.ClientCAs = tls.RequireAndVerifyClientCert, pool
	if c.name != "" {
		settings.VerifyConnection = func(state tls.ConnectionState) error {
			if got := state.PeerCertificates[0].Subject.CommonName; got != c.name {
				return fmt.Errorf("the client's certificate is for %q, but must be for %q", got, c.name)
			}
			return nil
		}
	}
	return nil
}
