// Package serve opens ports that strangers may reach, so that they don't keep others from being served.
//
// A connection is a stranger's until a request over it has proven who it is (Trust). There are few strangers at a time: a further one takes the place
// of the oldest of the address that has most. So an address that opens many connections loses its own, and nobody has to be known to get in.
package serve

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limit returns a listener that keeps at most so many connections of strangers.
func Limit(listener net.Listener, strangers int) net.Listener {
	return &limited{Listener: listener, max: strangers, strangers: map[string][]*connection{}}
}

type limited struct {
	net.Listener
	max int

	mutex sync.Mutex
	// strangers are those of each address, the oldest first.
	strangers map[string][]*connection
	count     int
}

// Accept returns the next connection.
func (l *limited) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: accepted, listener: l, address: host(accepted.RemoteAddr())}
	if oldest := l.add(c); oldest != nil {
		_ = oldest.Conn.Close() // the server hears of it, and closes the connection too
	}
	return c, nil
}

// add returns the connection that has to give way.
func (l *limited) add(c *connection) *connection {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.strangers[c.address] = append(l.strangers[c.address], c)
	l.count++
	if l.count <= l.max {
		return nil
	}
	most := c.address
	for address, connections := range l.strangers {
		if len(connections) > len(l.strangers[most]) {
			most = address
		}
	}
	oldest := l.strangers[most][0]
	l.remove(oldest)
	return oldest
}

// remove takes a connection out of the strangers if it is one. The mutex is held.
func (l *limited) remove(c *connection) {
	connections := l.strangers[c.address]
	for i := range connections {
		if connections[i] != c {
			continue
		}
		l.count--
		if len(connections) == 1 {
			delete(l.strangers, c.address)
			return
		}
		l.strangers[c.address] = append(connections[:i:i], connections[i+1:]...)
		return
	}
}

type connection struct {
	net.Conn
	listener *limited
	address  string
}

func (c *connection) known() {
	c.listener.mutex.Lock()
	defer c.listener.mutex.Unlock()
	c.listener.remove(c)
}

// Close closes the connection.
func (c *connection) Close() error {
	c.known()
	return c.Conn.Close()
}

func host(address net.Addr) string {
	if host, _, err := net.SplitHostPort(address.String()); err == nil {
		return host
	}
	return address.String()
}

// The timeouts of servers. A handshake and the headers of a request may take headerTimeout, and the whole request requestTimeout.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 15 * time.Second
	answerTimeout  = 30 * time.Second
	idleTimeout    = 90 * time.Second // for as long does the API server keep a connection for its next call
	maxHeader      = 32 << 10         // bytes; a token of a ServiceAccount has about 1 KiB
)

// Server returns a server for a listener that Limit has made, which may be behind TLS.
func Server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if secure, ok := c.(*tls.Conn); ok {
				c = secure.NetConn()
			}
			return context.WithValue(ctx, contextKey{}, c)
		},
	}
}

type contextKey struct{}

// Trust says that a request has proven who it is: its connection isn't a stranger's any longer.
func Trust(ctx context.Context) {
	if c, ok := ctx.Value(contextKey{}).(*connection); ok {
		c.known()
	}
}

// Trusting passes on requests that have proven who they are.
func Trusting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Trust(r.Context())
		next.ServeHTTP(w, r)
	})
}
