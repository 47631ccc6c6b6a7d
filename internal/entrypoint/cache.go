package entrypoint

import (
	"container/list"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// expiring is a cache that is bounded in entries and in bytes. An entry leaves when it expires, or when newer ones need its place: the
// least recently used goes first. It is safe for concurrent use.
type expiring[K comparable, V any] struct {
	clock                clock.PassiveClock
	maxEntries, maxBytes int

	mutex   sync.Mutex
	entries map[K]*list.Element
	used    *list.List // of *expiringEntry, most recently used first
	bytes   int
	swept   time.Time
}

type expiringEntry[K comparable, V any] struct {
	key   K
	value V
	size  int
	until time.Time
}

// sweepEvery is how often a cache removes expired entries.
const sweepEvery = time.Second

func newExpiring[K comparable, V any](clock clock.PassiveClock, maxEntries, maxBytes int) *expiring[K, V] {
	return &expiring[K, V]{clock: clock, maxEntries: maxEntries, maxBytes: maxBytes, entries: map[K]*list.Element{}, used: list.New()}
}

// add stores a value of this size in bytes, key included. It ignores a value that alone exceeds the bound.
func (c *expiring[K, V]) add(key K, value V, size int, ttl time.Duration) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := c.clock.Now()
	c.remove(c.entries[key])
	c.sweep(now)
	if size > c.maxBytes {
		return
	}
	c.bytes += size
	c.entries[key] = c.used.PushFront(&expiringEntry[K, V]{key, value, size, now.Add(ttl)})
	for len(c.entries) > c.maxEntries || c.bytes > c.maxBytes {
		c.remove(c.used.Back())
	}
}

func (c *expiring[K, V]) get(key K) (value V, ok bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.sweep(c.clock.Now())
	element := c.entries[key]
	if element == nil {
		return value, false
	}
	entry := element.Value.(*expiringEntry[K, V])
	if c.clock.Now().After(entry.until) {
		c.remove(element)
		return value, false
	}
	c.used.MoveToFront(element)
	return entry.value, true
}

func (c *expiring[K, V]) drop(key K) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.remove(c.entries[key])
}

func (c *expiring[K, V]) remove(element *list.Element) {
	if element == nil {
		return
	}
	entry := c.used.Remove(element).(*expiringEntry[K, V])
	delete(c.entries, entry.key)
	c.bytes -= entry.size
}

func (c *expiring[K, V]) sweep(now time.Time) {
	if now.Sub(c.swept) < sweepEvery {
		return
	}
	c.swept = now
	for element := c.used.Front(); element != nil; {
		next := element.Next()
		if now.After(element.Value.(*expiringEntry[K, V]).until) {
			c.remove(element)
		}
		element = next
	}
}
