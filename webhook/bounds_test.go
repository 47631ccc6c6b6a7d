package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestBoundedReview proves that a review that is too large is not read, and that the user sees why it is rejected. A review of unknown size is not
// read beyond the bound.
func TestBoundedReview(t *testing.T) {
	handler := Bounded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	const head = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"kind":{"group":"","version":"v1","kind":"Pod"},"uid":"7","object":"`
	for name, c := range map[string]struct {
		head   string
		length int64 // 0: the length of the body, -1: unknown
		size   int
		code   int
		read   int // at most
		uid    string
	}{
		"small":                {head: head, size: 1 << 10, code: http.StatusOK, read: 1 << 20},
		"as large as may be":   {head: head, size: maxReview - len(head), code: http.StatusOK, read: maxReview},
		"too large":            {head: head, size: maxReview, code: http.StatusOK, read: maxHead, uid: "7"},
		"too large, no review": {head: `{"kind":"`, size: maxReview, code: http.StatusRequestEntityTooLarge, read: maxHead},
		"too large, no JSON":   {head: `x`, size: maxReview, code: http.StatusRequestEntityTooLarge, read: maxHead},
		"without a length":     {head: head, length: -1, size: 2 * maxReview, code: http.StatusBadRequest, read: maxReview + 64<<10},
	} {
		t.Run(name, func(t *testing.T) {
			body := &counted{Reader: io.MultiReader(strings.NewReader(c.head), io.LimitReader(endless{}, int64(c.size)))}
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
			request.ContentLength = int64(len(c.head) + c.size)
			if c.length < 0 {
				request.ContentLength = -1
			}
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, request)
			if answer.Code != c.code || body.read > c.read {
				t.Errorf("the code is %d after %d bytes were read, want %d after at most %d: %s", answer.Code, body.read, c.code, c.read, answer.Body)
			}
			if c.uid == "" {
				return
			}
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil {
				t.Fatal(err)
			}
			if string(review.Response.UID) != c.uid || review.Response.Allowed || !strings.HasPrefix(review.Response.Result.Message, "the Pod has ") {
				t.Errorf("the answer is %s", answer.Body)
			}
		})
	}
}

type counted struct {
	io.Reader
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

// endless is text without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// TestLargeReviewsTakeTurns proves that few large reviews are handled at the same time, and that a small one doesn't wait for them.
func TestLargeReviewsTakeTurns(t *testing.T) {
	const clients = 10
	let := make(chan struct{})
	var working, most, done atomic.Int32
	handler := Bounded(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.ContentLength > lightReview {
			now := working.Add(1)
			defer working.Add(-1)
			most.Store(max(most.Load(), now))
			<-let
		}
		done.Add(1)
	}))
	send := func(size int64) {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
		request.ContentLength = size
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	var sent sync.WaitGroup
	for range clients {
		sent.Go(func() { send(lightReview + 1) })
	}
	wait.For(t, "the first large reviews", func(context.Context) error {
		if now := working.Load(); now < heavyReviews {
			return fmt.Errorf("%d are worked on", now)
		}
		return nil
	})
	send(lightReview)
	close(let)
	sent.Wait()
	if most.Load() > heavyReviews || done.Load() != clients+1 {
		t.Errorf("%d large reviews were worked on at the same time, and %d reviews in all", most.Load(), done.Load())
	}
}

// TestLargeTasksTakeTurns proves that a Pod waits for a slot if the cache doesn't have the spec of the Task that it names, that it is rejected with a
// sentence if it gets none in time, and that it returns the slot.
func TestLargeTasksTakeTurns(t *testing.T) {
	limit := NewLargeTasks()
	handler := Handler{Agent: testAgent, Tasks: tasks{}, Live: tasks{newTask()}, Commands: &commands{}, LargeTasks: limit}
	request := requestFor(encode(t, namingPod()), "user")
	if err := limit.Acquire(t.Context(), request.Namespace); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	const busy = "the webhook is busy with other Pods that name large Tasks: create the Pod again"
	if response := handler.Handle(ctx, request); response.Allowed || response.Result.Message != busy {
		t.Errorf("while another Pod has the turn, the answer is %+v", response)
	}
	limit.Release(request.Namespace)
	for range 2 {
		if response := handler.Handle(t.Context(), request); !response.Allowed {
			t.Errorf("afterwards, the answer is %+v", response.Result)
		}
	}
}
