package entrypoint

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
)

// expiring is a cache that is bounded in entries and in bytes. An entry leaves when it has expired and is read, or when newer ones need its
// place: the least recently used goes first. It is safe for concurrent use.
type expiring[K comparable, V any] struct {
	clock    clock.PassiveClock
	maxBytes int

	mutex   sync.Mutex // of bytes, which counts the entries
	entries *lru.Cache // of expiringEntry[V]
	bytes   int
}

type expiringEntry[V any] struct {
	value V
	size  int
	until time.Time
}

func newExpiring[K comparable, V any](clock clock.PassiveClock, maxEntries, maxBytes int) *expiring[K, V] {
	c := &expiring[K, V]{clock: clock, maxBytes: maxBytes}
	c.entries = lru.NewWithEvictionFunc(maxEntries, func(_ lru.Key, entry any) { c.bytes -= entry.(expiringEntry[V]).size })
	return c
}

// add stores a value of this size in bytes, key included. It ignores a value that alone exceeds the bound.
func (c *expiring[K, V]) add(key K, value V, size int, ttl time.Duration) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.entries.Remove(key)
	if size > c.maxBytes {
		return
	}
	c.bytes += size
	c.entries.Add(key, expiringEntry[V]{value, size, c.clock.Now().Add(ttl)})
	for c.bytes > c.maxBytes {
		c.entries.RemoveOldest()
	}
}

func (c *expiring[K, V]) get(key K) (value V, ok bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	known, ok := c.entries.Get(key)
	if !ok {
		return value, false
	}
	entry := known.(expiringEntry[V])
	if c.clock.Now().After(entry.until) {
		c.entries.Remove(key)
		return value, false
	}
	return entry.value, true
}

func (c *expiring[K, V]) drop(key K) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.entries.Remove(key)
}
