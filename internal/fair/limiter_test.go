package fair

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/test/wait"
)

// waiters counts the calls that wait for a slot.
func (l *Limiter) waiters() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	count := 0
	for _, waiting := range l.waiting {
		count += len(waiting)
	}
	return count
}

// enqueue starts an Acquire that must wait, and sends name once it has the slot.
func enqueue(t *testing.T, l *Limiter, key, name string, granted chan<- string) {
	t.Helper()
	before := l.waiters()
	go func() {
		if l.Acquire(t.Context(), key) == nil {
			granted <- name
		}
	}()
	wait.For(t, name+" in the queue", func(context.Context) error {
		if l.waiters() == before {
			return errors.New("it isn't")
		}
		return nil
	})
}

// TestTurns proves that the keys take turns, regardless of how many calls of one key wait, and that a key's own bound leaves slots to others.
func TestTurns(t *testing.T) {
	l := NewLimiter(3, 2)
	granted := make(chan string, 10)
	for _, key := range []string{"flood", "flood", "other"} {
		if err := l.Acquire(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		enqueue(t, l, "flood", fmt.Sprint("flood", i), granted)
	}
	enqueue(t, l, "third", "third0", granted)
	enqueue(t, l, "third", "third1", granted)

	var got []string
	for _, key := range []string{"other", "flood", "third", "flood", "flood"} {
		l.Release(key)
		select {
		case name := <-granted:
			got = append(got, name)
		case <-time.After(time.Minute):
			t.Fatalf("nobody has got the slot that %s has released; before: %q", key, got)
		}
	}
	// The slot of "other" isn't for "flood", which has its share.
	want := []string{"third0", "flood0", "third1", "flood1", "flood2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the order of grants (-want +got):\n%s", diff)
	}
}

// TestCancelled proves that a cancelled call holds no slot and blocks no other call.
func TestCancelled(t *testing.T) {
	l := NewLimiter(1, 1)
	if err := l.Acquire(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- l.Acquire(ctx, "b") }()
	wait.For(t, "b in the queue", func(context.Context) error {
		if l.waiters() == 0 {
			return errors.New("it isn't")
		}
		return nil
	})
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("Acquire: %v, want %v", err, context.Canceled)
	}
	l.Release("a")
	if err := l.Acquire(t.Context(), "c"); err != nil {
		t.Errorf("Acquire after that: %v", err)
	}
	l.Release("c")
	if l.used+len(l.held)+len(l.waiting)+len(l.turns) > 0 {
		t.Errorf("something is left: %d used, held %v, waiting %v, turns %v", l.used, l.held, l.waiting, l.turns)
	}
}

// TestBounds proves that the bounds hold for concurrent calls, and that no state is left in the end.
func TestBounds(t *testing.T) {
	const total, perKey = 5, 2
	l := NewLimiter(total, perKey)
	var used atomic.Int32
	var held [4]atomic.Int32
	var group sync.WaitGroup
	for i := range 400 {
		group.Go(func() {
			ctx := t.Context()
			if i%7 == 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Duration(i)*time.Microsecond)
				defer cancel()
			}
			key := i % len(held)
			if l.Acquire(ctx, strconv.Itoa(key)) != nil {
				return
			}
			if u, h := used.Add(1), held[key].Add(1); u > total || h > perKey {
				t.Errorf("%d slots are used, %d of one key; want at most %d and %d", u, h, total, perKey)
			}
			used.Add(-1)
			held[key].Add(-1)
			l.Release(strconv.Itoa(key))
		})
	}
	group.Wait()
	if l.used+len(l.held)+len(l.waiting)+len(l.turns) > 0 {
		t.Errorf("something is left: %d used, held %v, waiting %v, turns %v", l.used, l.held, l.waiting, l.turns)
	}
}
