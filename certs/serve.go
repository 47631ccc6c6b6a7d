package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"time"
)

type certificate = *tls.Certificate

// server holds the certificate that is served. One that the API server doesn't trust yet has to wait: the old one is
// served until the new one has been trusted for a while.
type server struct {
	names  []string
	settle time.Duration

	mutex   sync.Mutex
	current certificate
	// next is trusted since then, and waits.
	next  certificate
	since time.Time
	// trusted says whether the API server trusts the current one.
	trusted bool
}

// get is for tls.Config.GetCertificate.
func (s *server) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.current == nil {
		return nil, errors.New("there is no certificate yet")
	}
	return s.current, nil
}

// check says what keeps the API server from calling.
func (s *server) check() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	switch {
	case s.current == nil:
		return errors.New("there is no certificate yet")
	case !s.trusted:
		return errors.New("the webhook configuration doesn't trust the certificate yet")
	}
	return nil
}

// offer takes what the Secret holds (nil: nothing that can be served) and the authorities that the API server trusts. It says whether
// another certificate is served now, and, where one waits, how long that has to be offered again.
func (s *server) offer(offered certificate, bundle []*x509.Certificate, now time.Time) (changed bool, again time.Duration) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	trusted := func(c certificate) bool { return c != nil && trusts(bundle, c, s.names, now) }
	defer func() { s.trusted = trusted(s.current) }()

	switch {
	case offered != nil && now.Before(offered.Leaf.NotBefore): // made by a clock that is ahead of the API server's
		s.next = nil
		return false, offered.Leaf.NotBefore.Sub(now)
	case offered == nil || same(offered, s.current):
		s.next = nil
	case !trusted(s.current): // there is nothing to lose
		s.current, s.next = offered, nil
		return true, 0
	case !trusted(offered):
		s.next = nil
	case !same(offered, s.next):
		s.next, s.since = offered, now
		return false, s.settle
	case now.Sub(s.since) < s.settle:
		return false, s.settle - now.Sub(s.since)
	default:
		s.current, s.next = offered, nil
		return true, 0
	}
	return false, 0
}

func same(a, b certificate) bool {
	return a != nil && b != nil && bytes.Equal(a.Leaf.Raw, b.Leaf.Raw)
}
