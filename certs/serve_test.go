package certs

import (
	"crypto/x509"
	"testing"
	"time"
)

// TestOffer proves, step by step, which of two certificates is served: a new one only after the API server has trusted it for a while,
// unless the old one is not trusted.
func TestOffer(t *testing.T) {
	first, second := fresh(t), fresh(t)
	bundle := func(contents ...map[string][]byte) []*x509.Certificate {
		var certs []*x509.Certificate
		for _, data := range contents {
			certs = append(certs, parseCerts(data[bundleFile])...)
		}
		return certs
	}
	const settle = 30 * time.Second
	type step struct {
		name    string
		offered map[string][]byte
		trusted []*x509.Certificate
		after   time.Duration // after the start
		serves  map[string][]byte
		again   time.Duration
		ready   bool
	}
	cases := map[string][]step{
		"the first certificate": {
			{"there is none", nil, nil, 0, nil, 0, false},
			{"not trusted yet", first, nil, 0, first, 0, false},
			{"trusted", first, bundle(first), 0, first, 0, true},
		},
		"a certificate that is not valid yet": {
			{"too early", first, bundle(first), -day - 5*time.Second, nil, 5 * time.Second, false},
			{"in time", first, bundle(first), -day, first, 0, true},
			{"the clock is set back", first, bundle(first), -day - time.Second, first, time.Second, false},
		},
		"a renewal": {
			{"the old one", first, bundle(first), 0, first, 0, true},
			{"the new one is not trusted yet", second, bundle(first), 0, first, 0, true},
			{"it is", second, bundle(second, first), time.Second, first, settle, true},
			{"too short a time", second, bundle(second, first), 21 * time.Second, first, 10 * time.Second, true},
			{"long enough", second, bundle(second, first), 31 * time.Second, second, 0, true},
			{"the old one is forgotten", second, bundle(second), day, second, 0, true},
		},
		"a renewal with an authority that replaces the old one": {
			{"the old one", first, bundle(first), 0, first, 0, true},
			{"at once", second, bundle(second), 0, second, 0, true},
		},
		"a Secret that is deleted": {
			{"the old one", first, bundle(first), 0, first, 0, true},
			{"none", nil, bundle(first), 0, first, 0, true},
			{"the new one", second, bundle(second, first), 0, first, settle, true},
			{"long enough", second, bundle(second, first), settle, second, 0, true},
		},
		"a webhook configuration that has lost its authorities": {
			{"the old one", first, bundle(first), 0, first, 0, true},
			{"the API server cannot call", first, nil, 0, first, 0, false},
			{"repaired", first, bundle(first), 0, first, 0, true},
		},
		"trust that does not last": {
			{"the old one", first, bundle(first), 0, first, 0, true},
			{"the new one is trusted", second, bundle(second, first), 0, first, settle, true},
			{"no longer", second, bundle(first), 20 * time.Second, first, 0, true},
			{"again", second, bundle(second, first), 40 * time.Second, first, settle, true},
		},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			s := &server{names: names, settle: settle}
			for _, step := range steps {
				offered, _ := parseServed(step.offered)
				_, again := s.offer(offered, step.trusted, start.Add(step.after))
				if again != step.again {
					t.Errorf("%s: offer again in %s, want %s", step.name, again, step.again)
				}
				want, _ := parseServed(step.serves)
				if got, err := s.get(nil); err == nil && !same(got, want) || err != nil && want != nil {
					t.Errorf("%s: the wrong certificate is served (error: %v)", step.name, err)
				}
				if err := s.check(); (err == nil) != step.ready {
					t.Errorf("%s: the check says %v, ready should be %t", step.name, err, step.ready)
				}
			}
		})
	}
}
