package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Lifetimes say how long certificates are valid. Each is renewed when a third of its life is left.
type Lifetimes struct {
	// Authority is of the one that signs the others.
	Authority time.Duration
	// Serving is of the certificate that the webhook serves.
	Serving time.Duration
}

// DefaultLifetimes are long enough for an operator that was away for a month.
var DefaultLifetimes = Lifetimes{Authority: 5 * 365 * 24 * time.Hour, Serving: 90 * 24 * time.Hour}

// formerAuthorities is how many authorities are trusted besides the one that signs. A Secret that is damaged again and again
// makes no bundle that grows for ever.
const formerAuthorities = 4

// settle is how long the API server trusts a certificate before a replica serves it: a cluster may have several API
// servers, and each hears of the change by itself. Short lives leave less.
func (l Lifetimes) settle() time.Duration { return min(30*time.Second, l.Serving/30) }

// overlap is how long an authority that no longer signs is trusted. By then every replica serves a certificate of
// the new one.
func (l Lifetimes) overlap() time.Duration { return min(24*time.Hour, l.Serving/3) }

// renewal is what is to become of the Secret.
type renewal struct {
	// data is what the Secret is to hold; why says the reason for the change, and is empty where there is none.
	data map[string][]byte
	why  string
	// again is when something is to be renewed next.
	again time.Time
}

// renew decides what the Secret holds from now on, which is by the clock of the API server. trusted are the authorities that the API server trusts now; where the
// authority has been lost, they are what the replicas' certificates are still trusted by.
func renew(data map[string][]byte, trusted []*x509.Certificate, names []string, lifetimes Lifetimes, now time.Time) (renewal, error) {
	signer, bundle, err := parseAuthority(data)
	var why string
	switch {
	case len(data) == 0:
		why = "there is no certificate yet"
	case err != nil:
		why = err.Error()
	case now.Before(signer.cert.NotBefore):
		why = "the authority is valid only from " + signer.cert.NotBefore.Format(time.RFC3339)
	case now.After(renewalOf(signer.cert)):
		why = "the authority ends at " + signer.cert.NotAfter.Format(time.RFC3339)
	}
	newSigner := why != ""
	former := without(bundle, signer.cert)
	if newSigner {
		former = without(slices.Concat(bundle, trusted), nil)
		if signer, err = newAuthority(now, lifetimes.Authority); err != nil {
			return renewal{}, fmt.Errorf("making an authority: %w", err)
		}
	}
	former = slices.DeleteFunc(former, func(cert *x509.Certificate) bool {
		return now.After(cert.NotAfter) || now.After(made(signer.cert).Add(lifetimes.overlap()))
	})
	former = former[:min(len(former), formerAuthorities)]
	bundle = append([]*x509.Certificate{signer.cert}, former...)
	next := map[string][]byte{bundleFile: encodeCerts(bundle...), caKeyFile: data[caKeyFile], certFile: data[certFile], keyFile: data[keyFile]}
	if newSigner {
		if next[caKeyFile], err = encodeKey(signer.key); err != nil {
			return renewal{}, err
		}
	} else if string(next[bundleFile]) != string(data[bundleFile]) {
		why = "a former authority is no longer trusted"
	}

	served, err := parseServed(next)
	if broken := brokenServed(served, err, signer, names, now); broken != "" {
		if why == "" {
			why = broken
		}
		if next[certFile], next[keyFile], err = signer.issue(names, now, lifetimes.Serving); err != nil {
			return renewal{}, fmt.Errorf("making a certificate: %w", err)
		}
		if served, err = parseServed(next); err != nil {
			return renewal{}, err
		}
	}

	again := earlier(renewalOf(signer.cert), renewalOf(served.Leaf))
	if len(former) > 0 {
		again = earlier(again, made(signer.cert).Add(lifetimes.overlap()))
	}
	return renewal{data: next, why: why, again: again}, nil
}

// brokenServed says why the certificate can't be served any longer. Empty: it can.
func brokenServed(served certificate, err error, signer authority, names []string, now time.Time) string {
	switch {
	case err != nil:
		return err.Error()
	case now.Before(served.Leaf.NotBefore):
		return "the certificate is valid only from " + served.Leaf.NotBefore.Format(time.RFC3339)
	case now.After(renewalOf(served.Leaf)):
		return "the certificate ends at " + served.Leaf.NotAfter.Format(time.RFC3339)
	case !trusts([]*x509.Certificate{signer.cert}, served, names, now):
		return "the certificate isn't the authority's, or not for this Service"
	}
	return ""
}

// renewalOf is when a third of the certificate's life is left.
func renewalOf(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-cert.NotAfter.Sub(made(cert)) / 3)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// without returns each certificate once, but for the one given.
func without(certs []*x509.Certificate, unwanted *x509.Certificate) []*x509.Certificate {
	var kept []*x509.Certificate
	for _, cert := range certs {
		if !cert.Equal(unwanted) && !slices.ContainsFunc(kept, cert.Equal) {
			kept = append(kept, cert)
		}
	}
	return kept
}
