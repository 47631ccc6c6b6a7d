// Package serve opens ports that every Pod can reach, so that unauthenticated clients do not keep others from being served.
//
// A connection is a stranger until one of its requests is authenticated (Trusting). The number of strangers is bounded. A new one replaces
// the oldest connection of the address that has the most. So an address that opens many connections closes its own, and a new client needs
// no earlier request to be served.
package serve

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Limit returns a listener that keeps at most this many strangers.
func Limit(listener net.Listener, strangers int) net.Listener {
	return &limited{Listener: listener, max: strangers, strangers: map[string][]*connection{}}
}

type limited struct {
	net.Listener
	max int

	mutex     sync.Mutex
	strangers map[string][]*connection // by address, the oldest first
	count     int
}

// Accept returns the next connection.
func (l *limited) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	address := accepted.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	c := &connection{Conn: accepted, listener: l, address: address}
	if oldest := l.add(c); oldest != nil {
		_ = oldest.Conn.Close() // the server notices, and calls Close, too
	}
	return c, nil
}

// add returns the connection that must be closed, if any.
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

// remove removes a connection from the strangers if it is one. The caller holds the mutex.
func (l *limited) remove(c *connection) {
	connections := l.strangers[c.address]
	i := slices.Index(connections, c)
	if i < 0 {
		return
	}
	l.count--
	l.strangers[c.address] = slices.Delete(connections, i, i+1)
	if len(connections) == 1 {
		delete(l.strangers, c.address)
	}
}

type connection struct {
	net.Conn
	listener *limited
	address  string
}

// trust removes the connection from the strangers.
func (c *connection) trust() {
	c.listener.mutex.Lock()
	defer c.listener.mutex.Unlock()
	c.listener.remove(c)
}

// Close closes the connection.
func (c *connection) Close() error {
	c.trust()
	return c.Conn.Close()
}

// Timeouts and bounds of a server.
const (
	headerTimeout  = 5 * time.Second // for a handshake and the headers of a request
	requestTimeout = 15 * time.Second
	answerTimeout  = 30 * time.Second
	idleTimeout    = 90 * time.Second // the API server keeps an idle connection as long
	maxHeader      = 32 << 10         // bytes; a ServiceAccount's token has about 1 KiB
)

// Server returns a server for a listener of Limit, which may be behind TLS.
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

// Trusting marks the connection of each request as authenticated. Put it behind the handler that authenticates.
func Trusting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(contextKey{}).(*connection); ok {
			c.trust()
		}
		next.ServeHTTP(w, r)
	})
}
