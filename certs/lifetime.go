package certs

import (
	"crypto/x509"
	"time"
)

// Lifetimes are how long certificates are valid. Each is renewed when a third of its lifetime is left.
type Lifetimes struct {
	// Authority is for the certificate authority.
	Authority time.Duration
	// Serving is for the certificate that the webhook serves.
	Serving time.Duration
}

// DefaultLifetimes allow for an operator that is down for a month.
var DefaultLifetimes = Lifetimes{Authority: 5 * 365 * 24 * time.Hour, Serving: 90 * 24 * time.Hour}

// formerAuthorities bounds the authorities that are trusted besides the current one, so that a Secret that is damaged again and again does
// not lead to an endless bundle.
const formerAuthorities = 4

// settle is how long the API server trusts a certificate before a replica serves it, because each API server of a cluster learns of a
// change by itself. It is shorter for short lifetimes.
func (l Lifetimes) settle() time.Duration { return min(30*time.Second, l.Serving/30) }

// overlap is how long a former authority stays trusted. By then every replica serves a certificate of the new one.
func (l Lifetimes) overlap() time.Duration { return min(24*time.Hour, l.Serving/3) }

// backdated is how long before its issue a certificate is valid, because the clocks of several API servers differ.
const backdated = 24 * time.Hour

// issuedAt is when this package issued the certificate.
func issuedAt(cert *x509.Certificate) time.Time { return cert.NotBefore.Add(backdated) }

// renewalOf is when a third of the certificate's lifetime is left.
func renewalOf(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-cert.NotAfter.Sub(issuedAt(cert)) / 3)
}
