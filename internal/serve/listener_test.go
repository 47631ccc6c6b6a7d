package serve

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/taskflow/taskflow-operator/test/wait"
)

// open starts a TLS server with a bound of strangers. Requests to /known are authenticated.
func open(t *testing.T, strangers int) (address string, client func(from string) *http.Client) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/known", Trusting(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewUnstartedServer(nil)
	server.Config = Server(mux)
	server.Listener = Limit(server.Listener, strangers)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), func(from string) *http.Client {
		transport := server.Client().Transport.(*http.Transport).Clone()
		transport.DialContext = dialer(from).DialContext
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport, Timeout: 10 * time.Second}
	}
}

// dialer connects from one of the loopback addresses.
func dialer(from string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
}

// TestFloodOfStrangers proves that a flood of silent or unauthenticated connections affects neither clients from other addresses nor
// authenticated connections.
func TestFloodOfStrangers(t *testing.T) {
	const bound = 20
	address, client := open(t, bound)
	get := func(client *http.Client, path string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	known := client("127.0.0.1")
	get(known, "/known")

	var silent []net.Conn
	for i := range 10 * bound {
		from := "127.0.0.2"
		if i%2 == 0 {
			from = "127.0.0.3"
		}
		var connection net.Conn
		var err error
		if i%5 == 0 { // with a TLS handshake
			dialer := tls.Dialer{NetDialer: dialer(from), Config: &tls.Config{InsecureSkipVerify: true}}
			connection, err = dialer.DialContext(t.Context(), "tcp", address)
		} else {
			connection, err = dialer(from).DialContext(t.Context(), "tcp", address)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		silent = append(silent, connection)
	}
	get(client("127.0.0.4"), "/")
	get(client("127.0.0.2"), "/") // the address of the flood
	get(known, "/known")

	wait.For(t, "the oldest to be closed", func(context.Context) error {
		if err := silent[1].SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := silent[1].Read(make([]byte, 1)); err == nil || isTimeout(err) {
			return io.ErrNoProgress
		}
		return nil
	})
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error) //nolint:errorlint // Read returns it unwrapped
	return ok && timeout.Timeout()
}

// TestOldestIsReplaced proves which connection a new one replaces: the oldest of the address that has the most.
func TestOldestIsReplaced(t *testing.T) {
	l := &limited{max: 4, strangers: map[string][]*connection{}}
	from := func(address string) *connection { return &connection{listener: l, address: address} }
	a1, b1, b2, a2 := from("a"), from("b"), from("b"), from("a")
	for _, c := range []*connection{a1, b1, b2, a2} {
		if gone := l.add(c); gone != nil {
			t.Errorf("below the bound, a connection of %s is closed", gone.address)
		}
	}
	b3 := from("b")
	if gone := l.add(b3); gone != b1 {
		t.Errorf("%+v is closed, want the oldest of b", gone)
	}
	a1.trust() // no longer counted
	if gone := l.add(from("c")); gone != nil {
		t.Errorf("below the bound, a connection of %s is closed", gone.address)
	}
	if gone := l.add(from("c")); gone != b2 && gone.address != "c" {
		t.Errorf("%+v is closed", gone)
	}
	a1.trust()
	if l.count != 4 {
		t.Errorf("the count of strangers is %d, want 4", l.count)
	}
}
