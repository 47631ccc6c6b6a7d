package entrypoint

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/taskflow/taskflow-operator/internal/fair"
)

// bodies is a transport that counts the responses that are being read beyond smallDocument.
type bodies struct {
	now, most atomic.Int32
	text      string
}

func (b *bodies) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: &body{Reader: strings.NewReader(b.text), of: b}}, nil
}

type body struct {
	io.Reader
	of    *bodies
	read  int
	begin sync.Once
}

func (b *body) Read(p []byte) (int, error) {
	if b.read < smallDocument {
		n, err := b.Reader.Read(p)
		b.read += n
		return n, err
	}
	b.begin.Do(func() {
		now := b.of.now.Add(1)
		for most := b.of.most.Load(); now > most && !b.of.most.CompareAndSwap(most, now); most = b.of.most.Load() {
		}
	})
	runtime.Gosched() // others may start now
	n, err := b.Reader.Read(p[:1])
	if errors.Is(err, io.EOF) {
		b.of.now.Add(-1)
	}
	return n, err
}

func (b *body) Close() error { return nil }

// TestReadTakesTurns proves that the number of long documents read at a time is bounded, that waiting readers get their turn, and that a
// reader waits no longer than its context.
func TestReadTakesTurns(t *testing.T) {
	const places, many = 2, 50
	repository, err := name.NewRepository("registry.example.com/app")
	if err != nil {
		t.Fatal(err)
	}
	served := &bodies{text: strings.Repeat("x", smallDocument+1000)}
	s := &session{&http.Client{Transport: served}, repository, "default", fair.NewLimiter(places, places)}
	digest, _, err := v1.SHA256(strings.NewReader(served.text))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range many {
		group.Go(func() {
			if content, _, err := s.read(t.Context(), "blobs", digest); err != nil || string(content) != served.text {
				t.Errorf("read %d bytes: %v", len(content), err)
			}
		})
	}
	group.Wait()
	if most := served.most.Load(); most > places {
		t.Errorf("%d were being read at a time, want at most %d", most, places)
	}

	for range places {
		if err := s.bodies.Acquire(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.read(ctx, "blobs", digest); !errors.Is(err, context.Canceled) {
		t.Errorf("read without a place: %v, want %v", err, context.Canceled)
	}
	// A short document needs no turn: registries that send long ones slowly do not delay it.
	served.text = "short"
	short, _, err := v1.SHA256(strings.NewReader(served.text))
	if err != nil {
		t.Fatal(err)
	}
	if content, _, err := s.read(t.Context(), "blobs", short); err != nil || string(content) != served.text {
		t.Errorf("read %q: %v", content, err)
	}
}
