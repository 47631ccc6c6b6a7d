// Package fair shares a bounded resource among tenants, so that no tenant starves the others.
package fair

import (
	"context"
	"slices"
	"sync"
)

// Limiter hands out slots: a bounded number in total, and a bounded number to each key. A free slot goes to the keys in turn, and within a key to
// the oldest call of Acquire. It is safe for concurrent use.
type Limiter struct {
	total, perKey int

	mutex   sync.Mutex
	used    int
	held    map[string]int
	waiting map[string][]chan struct{}
	// turns are the keys with waiting calls, in the order of their turns.
	turns []string
}

// NewLimiter returns a Limiter with the given number of slots in total and per key.
func NewLimiter(total, perKey int) *Limiter {
	return &Limiter{total: total, perKey: perKey, held: map[string]int{}, waiting: map[string][]chan struct{}{}}
}

// Acquire blocks until a slot is free or the context ends, and returns the context's error then. The caller must Release the slot.
func (l *Limiter) Acquire(ctx context.Context, key string) error {
	l.mutex.Lock()
	if l.used < l.total && l.held[key] < l.perKey {
		l.take(key) // no waiting call could use it, because serve leaves no such slot
		l.mutex.Unlock()
		return nil
	}
	granted := make(chan struct{})
	if len(l.waiting[key]) == 0 {
		l.turns = append(l.turns, key)
	}
	l.waiting[key] = append(l.waiting[key], granted)
	l.mutex.Unlock()

	select {
	case <-granted:
		return nil
	case <-ctx.Done():
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if i := slices.Index(l.waiting[key], granted); i >= 0 {
		l.setWaiting(key, slices.Delete(l.waiting[key], i, i+1))
	} else { // granted in the meantime
		l.release(key)
	}
	return ctx.Err()
}

// Release returns a slot.
func (l *Limiter) Release(key string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.release(key)
}

func (l *Limiter) release(key string) {
	l.used--
	if l.held[key]--; l.held[key] == 0 {
		delete(l.held, key)
	}
	l.serve()
}

func (l *Limiter) take(key string) {
	l.used++
	l.held[key]++
}

// serve grants free slots to waiting calls, one to each key in turn.
func (l *Limiter) serve() {
	for l.used < l.total {
		i := slices.IndexFunc(l.turns, func(key string) bool { return l.held[key] < l.perKey })
		if i < 0 {
			return
		}
		key := l.turns[i]
		first := l.waiting[key][0]
		l.take(key)
		l.setWaiting(key, l.waiting[key][1:])
		if len(l.waiting[key]) > 0 { // its next turn comes last
			l.turns = append(slices.Delete(l.turns, i, i+1), key)
		}
		close(first)
	}
}

// setWaiting sets the waiting calls of a key, and removes a key without any.
func (l *Limiter) setWaiting(key string, waiting []chan struct{}) {
	if len(waiting) > 0 {
		l.waiting[key] = waiting
		return
	}
	delete(l.waiting, key)
	if i := slices.Index(l.turns, key); i >= 0 {
		l.turns = slices.Delete(l.turns, i, i+1)
	}
}
