package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// renewal is the decision about the Secret.
type renewal struct {
	// data is what the Secret must hold. why is the reason for a change, or empty.
	data map[string][]byte
	why  string
	// again is when the next renewal is due.
	again time.Time
}

// renew decides what the Secret must hold at this time of the API server. trusted are the authorities that the API server trusts now: if
// the Secret has lost its authority, the replicas' certificates still depend on them.
func renew(data map[string][]byte, trusted []*x509.Certificate, names []string, lifetimes Lifetimes, now time.Time) (renewal, error) {
	signer, bundle, err := parseAuthority(data)
	var why string
	switch {
	case len(data) == 0:
		why = "there is no certificate yet"
	case err != nil:
		why = err.Error()
	case now.Before(signer.Leaf.NotBefore):
		why = "the authority is not valid before " + signer.Leaf.NotBefore.Format(time.RFC3339)
	case now.After(renewalOf(signer.Leaf)):
		why = "the authority expires at " + signer.Leaf.NotAfter.Format(time.RFC3339)
	}
	newSigner := why != ""
	if newSigner {
		bundle = slices.Concat(bundle, trusted)
		if signer, err = newAuthority(now, lifetimes.Authority); err != nil {
			return renewal{}, fmt.Errorf("creating an authority: %w", err)
		}
	}
	former := slices.DeleteFunc(without(bundle, signer.Leaf), func(cert *x509.Certificate) bool {
		return now.After(cert.NotAfter) || now.After(issuedAt(signer.Leaf).Add(lifetimes.overlap()))
	})
	former = former[:min(len(former), formerAuthorities)]
	bundle = append([]*x509.Certificate{signer.Leaf}, former...)
	next := map[string][]byte{bundleFile: encodeCerts(bundle...), caKeyFile: data[caKeyFile], certFile: data[certFile], keyFile: data[keyFile]}
	if newSigner {
		if next[caKeyFile], err = encodeKey(signer); err != nil {
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
		if next[certFile], next[keyFile], err = issue(signer, names, now, lifetimes.Serving); err != nil {
			return renewal{}, fmt.Errorf("issuing a certificate: %w", err)
		}
		if served, err = parseServed(next); err != nil {
			return renewal{}, err
		}
	}

	due := []time.Time{renewalOf(signer.Leaf), renewalOf(served.Leaf)}
	if len(former) > 0 {
		due = append(due, issuedAt(signer.Leaf).Add(lifetimes.overlap()))
	}
	return renewal{data: next, why: why, again: slices.MinFunc(due, time.Time.Compare)}, nil
}

// brokenServed returns why the certificate can no longer be served, or "".
func brokenServed(served certificate, err error, signer certificate, names []string, now time.Time) string {
	switch {
	case err != nil:
		return err.Error()
	case now.Before(served.Leaf.NotBefore):
		return "the certificate is not valid before " + served.Leaf.NotBefore.Format(time.RFC3339)
	case now.After(renewalOf(served.Leaf)):
		return "the certificate expires at " + served.Leaf.NotAfter.Format(time.RFC3339)
	case !isTrusted([]*x509.Certificate{signer.Leaf}, served, names, now):
		return "the certificate is not issued by the authority, or not for these Services"
	}
	return ""
}

// without returns each certificate once, except for unwanted.
func without(certs []*x509.Certificate, unwanted *x509.Certificate) []*x509.Certificate {
	var kept []*x509.Certificate
	for _, cert := range certs {
		if !cert.Equal(unwanted) && !slices.ContainsFunc(kept, cert.Equal) {
			kept = append(kept, cert)
		}
	}
	return kept
}
