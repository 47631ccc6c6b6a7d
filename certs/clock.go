package certs

import (
	"net/http"
	"sync"
	"time"
)

// tolerance is how far apart two clocks may be before one corrects the other: what the API server says is in whole seconds, and on its way
// for a while.
const tolerance = time.Minute

// clock is the API server's, which each of its answers tells: it's the API server that takes a certificate for valid or not. So replicas
// agree whatever their nodes take the time for, and none makes a certificate that isn't valid yet, or no longer. Until the first
// answer, which comes before the first certificate is made, it is this machine's.
type clock struct {
	mutex sync.Mutex
	ahead time.Duration // of this machine's
}

func (c *clock) now() time.Time {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return time.Now().Add(c.ahead)
}

// hear takes what an answer says that has come just now, as net/http's servers do.
func (c *clock) hear(answer *http.Response) {
	date, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if ahead := time.Until(date); (ahead - c.ahead).Abs() > tolerance {
		c.ahead = ahead
	}
}

// listening is a transport to the API server.
type listening struct {
	http.RoundTripper
	clock *clock
}

func (l listening) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := l.RoundTripper.RoundTrip(request)
	if err == nil {
		l.clock.hear(answer)
	}
	return answer, err
}
