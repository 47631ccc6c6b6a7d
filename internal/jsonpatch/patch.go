// Package jsonpatch writes JSON patches (RFC 6902) by hand.
//
// Its patches set and remove members of objects, and add elements to the end of lists. So no operation moves what another one, or another writer, refers to by its index, and fields that nobody here
// knows stay as they are.
package jsonpatch

import (
	"encoding/json"
	"slices"
	"strings"
)

// Patch is a list of operations. The zero value is an empty one.
type Patch []operation

// operation has no encoding of its own: encoding/json reads what a MarshalJSON returns a second time, which was a fifth of the
// webhook's time for a Pod of many containers.
type operation struct {
	Operation string `json:"op"`
	Path      string `json:"path"`
	Value     any    `json:"value,omitempty"`
}

// orNull keeps null from being left out.
func orNull(value any) any {
	if value == nil {
		return json.RawMessage("null")
	}
	return value
}

// Test makes the whole patch fail where the member doesn't have the value.
func (p *Patch) Test(value any, path ...string) { p.append("test", orNull(value), path) }

// Set gives a member of an object a value. The object must exist.
func (p *Patch) Set(value any, path ...string) { p.append("add", orNull(value), path) }

// Remove takes a member of an object away. The member must exist.
func (p *Patch) Remove(path ...string) { p.append("remove", nil, path) }

func (p *Patch) append(name string, value any, path []string) {
	*p = append(*p, operation{name, pointer(path), value})
}

// Add puts elements at the end of a list that has the given length. A list that is empty may not exist.
func Add[T any](p *Patch, length int, elements []T, path ...string) {
	switch {
	case len(elements) == 0:
	case length == 0:
		p.Set(elements, path...)
	default:
		for _, element := range elements {
			p.Set(element, append(slices.Clip(path), "-")...)
		}
	}
}

// Marshal returns the patch as it is sent.
func (p Patch) Marshal() ([]byte, error) { return json.Marshal([]operation(p)) }

// escape is made once: that takes longer than to use it.
var escape = strings.NewReplacer("~", "~0", "/", "~1")

// pointer is a JSON pointer (RFC 6901).
func pointer(path []string) string {
	var text strings.Builder
	text.Grow(64) // most are shorter
	for _, part := range path {
		text.WriteByte('/')
		text.WriteString(escape.Replace(part))
	}
	return text.String()
}
