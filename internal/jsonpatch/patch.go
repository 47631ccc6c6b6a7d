// Package jsonpatch writes JSON patches (RFC 6902).
//
// Its patches set and remove members of objects, and append elements to lists. So no operation moves an element that another operation or another
// writer refers to by its index, and unknown fields survive.
package jsonpatch

import (
	"encoding/json"
	"slices"
	"strings"
)

// Patch is a list of operations. The zero value is empty and ready to use.
type Patch []operation

// operation has no MarshalJSON: encoding/json would parse its result again, which took a fifth of the webhook's time for a Pod with many containers.
type operation struct {
	Operation string `json:"op"`
	Path      string `json:"path"`
	Value     any    `json:"value,omitempty"`
}

// orNull keeps omitempty from dropping null.
func orNull(value any) any {
	if value == nil {
		return json.RawMessage("null")
	}
	return value
}

// Test makes the whole patch fail if the member has another value.
func (p *Patch) Test(value any, path ...string) { p.append("test", orNull(value), path) }

// Set sets a member of an object. The object must exist.
func (p *Patch) Set(value any, path ...string) { p.append("add", orNull(value), path) }

// Remove removes a member of an object. The member must exist.
func (p *Patch) Remove(path ...string) { p.append("remove", nil, path) }

func (p *Patch) append(name string, value any, path []string) {
	*p = append(*p, operation{name, pointer(path), value})
}

// Add appends elements to a list of the given length. An empty list need not exist.
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

// Marshal returns the JSON of the patch.
func (p Patch) Marshal() ([]byte, error) { return json.Marshal([]operation(p)) }

// escape is shared, because creating it takes longer than using it.
var escape = strings.NewReplacer("~", "~0", "/", "~1")

// pointer returns the JSON pointer (RFC 6901) of a path.
func pointer(path []string) string {
	var text strings.Builder
	text.Grow(64) // enough for most
	for _, part := range path {
		text.WriteByte('/')
		text.WriteString(escape.Replace(part))
	}
	return text.String()
}
