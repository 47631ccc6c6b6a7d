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

// server holds the certificate that is served. A new one waits until the API server has trusted it for a while. Until then the old one is
// served.
type server struct {
	names  []string
	settle time.Duration

	mutex   sync.Mutex
	current certificate
	// next waits, and has been trusted since then.
	next  certificate
	since time.Time
	// trusted is whether the API server trusts the current certificate.
	trusted bool
}

// get implements tls.Config.GetCertificate.
func (s *server) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.current == nil {
		return nil, errors.New("there is no certificate yet")
	}
	return s.current, nil
}

// check returns what keeps the API server from calling.
func (s *server) check() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	switch {
	case s.current == nil:
		return errors.New("there is no certificate yet")
	case !s.trusted:
		return errors.New("the webhook configuration does not trust the certificate yet")
	}
	return nil
}

// offer takes the Secret's certificate (nil if unusable) and the authorities that the API server trusts. It reports whether the served
// certificate has changed, and after how long a waiting one must be offered again.
func (s *server) offer(offered certificate, bundle []*x509.Certificate, now time.Time) (changed bool, again time.Duration) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	trusted := func(c certificate) bool { return c != nil && isTrusted(bundle, c, s.names, now) }
	defer func() { s.trusted = trusted(s.current) }()

	switch {
	case offered != nil && now.Before(offered.Leaf.NotBefore): // issued by a clock ahead of the API server's
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
	default:
		if wait := s.settle - now.Sub(s.since); wait > 0 {
			return false, wait
		}
		s.current, s.next = offered, nil
		return true, 0
	}
	return false, 0
}

func same(a, b certificate) bool {
	return a != nil && b != nil && bytes.Equal(a.Leaf.Raw, b.Leaf.Raw)
}
