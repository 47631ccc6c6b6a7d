package certs

import (
	"net/http"
	"sync/atomic"
	"time"
)

// tolerance is how far two clocks may differ before one corrects the other. The Date header has whole seconds, and a response takes time.
const tolerance = time.Minute

// clock follows the API server, whose responses contain its time, because the API server decides whether a certificate is valid. So
// replicas agree whatever the clocks of their nodes say, and none issues a certificate that is not valid yet or no longer. Before the first
// response, which precedes the first certificate, it is this machine's clock.
type clock struct {
	ahead atomic.Int64 // of this machine's clock, a time.Duration
}

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// listening is a transport to the API server that sets the clock.
type listening struct {
	http.RoundTripper
	clock *clock
}

func (l listening) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := l.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		if ahead := time.Until(date); (ahead - time.Duration(l.clock.ahead.Load())).Abs() > tolerance {
			l.clock.ahead.Store(int64(ahead))
		}
	}
	return answer, nil
}
