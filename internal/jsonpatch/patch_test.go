package jsonpatch_test

import (
	"encoding/json"
	"testing"

	rfc6902 "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// TestPatch proves what each operation does to a document, with the implementation of RFC 6902 that the API server uses.
func TestPatch(t *testing.T) {
	type patch = jsonpatch.Patch
	cases := map[string]struct {
		document string
		write    func(p *patch)
		want     string
	}{
		"nothing": {
			document: `{"a":1}`,
			write:    func(*patch) {},
			want:     `{"a":1}`,
		},
		"Set a new member": {
			document: `{"a":{"b":1}}`,
			write:    func(p *patch) { p.Set("new", "a", "c") },
			want:     `{"a":{"b":1,"c":"new"}}`,
		},
		"Set a member that is there": {
			document: `{"a":{"b":1,"c":"old"}}`,
			write:    func(p *patch) { p.Set([]string{"new"}, "a", "c") },
			want:     `{"a":{"b":1,"c":["new"]}}`,
		},
		"Set to null": {
			document: `{"a":1}`,
			write:    func(p *patch) { p.Set(nil, "a") },
			want:     `{"a":null}`,
		},
		"Set to the empty value": {
			document: `{"a":1}`,
			write:    func(p *patch) { p.Set("", "a") },
			want:     `{"a":""}`,
		},
		"Set in an element of a list": {
			document: `{"a":[{"b":1},{"b":2}]}`,
			write:    func(p *patch) { p.Set(3, "a", "1", "b") },
			want:     `{"a":[{"b":1},{"b":3}]}`,
		},
		"Remove a member": {
			document: `{"a":{"b":1,"c~/d":{"unknown":true}}}`,
			write:    func(p *patch) { p.Remove("a", "c~/d") },
			want:     `{"a":{"b":1}}`,
		},
		"Set keys with / and ~": {
			document: `{"a":{}}`,
			write: func(p *patch) {
				for _, key := range []string{"example.com/k", "m~n", "~1", "/", "~", "a/~b/~0", "", " ", "%2F", `"`} {
					p.Set(key, "a", key)
				}
			},
			want: `{"a":{"example.com/k":"example.com/k","m~n":"m~n","~1":"~1","/":"/","~":"~","a/~b/~0":"a/~b/~0","":""," ":" ","%2F":"%2F","\"":"\""}}`,
		},
		"Add to a list that isn't there": {
			document: `{"a":{}}`,
			write:    func(p *patch) { jsonpatch.Add(p, 0, []int{1, 2}, "a", "b") },
			want:     `{"a":{"b":[1,2]}}`,
		},
		"Add to null": {
			document: `{"a":null}`,
			write:    func(p *patch) { jsonpatch.Add(p, 0, []int{1, 2}, "a") },
			want:     `{"a":[1,2]}`,
		},
		"Add to an empty list": {
			document: `{"a":[]}`,
			write:    func(p *patch) { jsonpatch.Add(p, 0, []int{1, 2}, "a") },
			want:     `{"a":[1,2]}`,
		},
		"Add to a list moves nothing": {
			document: `{"a":[{"unknown":true},1]}`,
			write:    func(p *patch) { jsonpatch.Add(p, 2, []int{2, 3}, "a") },
			want:     `{"a":[{"unknown":true},1,2,3]}`,
		},
		"Add nothing to a list that isn't there": {
			document: `{}`,
			write:    func(p *patch) { jsonpatch.Add(p, 0, []int{}, "a") },
			want:     `{}`,
		},
		"Add nothing to a list": {
			document: `{"a":[1]}`,
			write:    func(p *patch) { jsonpatch.Add[int](p, 1, nil, "a") },
			want:     `{"a":[1]}`,
		},
		"Test lets the rest through": {
			document: `{"a":{"example.com/k":"1"}}`,
			write: func(p *patch) {
				p.Test("1", "a", "example.com/k")
				p.Set("2", "a", "example.com/k")
			},
			want: `{"a":{"example.com/k":"2"}}`,
		},
		"Test of the empty value": {
			document: `{"a":""}`,
			write: func(p *patch) {
				p.Test("", "a")
				p.Set("2", "a")
			},
			want: `{"a":"2"}`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var p jsonpatch.Patch
			c.write(&p)
			got, err := apply(t, c.document, p)
			if err != nil {
				t.Fatalf("the patch %s doesn't apply: %v", marshal(t, p), err)
			}
			if diff := cmp.Diff(decode(t, c.want), decode(t, got)); diff != "" {
				t.Errorf("after the patch %s (-want +got):\n%s", marshal(t, p), diff)
			}
		})
	}
}

// TestPatchFails proves that a patch for another document changes nothing.
func TestPatchFails(t *testing.T) {
	cases := map[string]func(p *jsonpatch.Patch){
		"Test of another value":                  func(p *jsonpatch.Patch) { p.Test("2", "a", "b") },
		"Test of another type":                   func(p *jsonpatch.Patch) { p.Test(1, "a", "b") },
		"Test of a member that isn't there":      func(p *jsonpatch.Patch) { p.Test("1", "a", "c") },
		"Test of an object that isn't there":     func(p *jsonpatch.Patch) { p.Test("1", "c", "b") },
		"Set in an object that isn't there":      func(p *jsonpatch.Patch) { p.Set("1", "c", "b") },
		"Add to a list that is no longer there":  func(p *jsonpatch.Patch) { jsonpatch.Add(p, 1, []int{1}, "c", "d") },
		"Set in an element that isn't there":     func(p *jsonpatch.Patch) { p.Set("1", "list", "1", "b") },
		"Test after an operation that does work": func(p *jsonpatch.Patch) { p.Set("2", "a", "b"); p.Test("1", "a", "b") },
	}
	for name, write := range cases {
		t.Run(name, func(t *testing.T) {
			var p jsonpatch.Patch
			write(&p)
			if got, err := apply(t, `{"a":{"b":"1"},"list":[{}]}`, p); err == nil {
				t.Errorf("the patch %s applies: %s", marshal(t, p), got)
			}
		})
	}
}

// TestMarshal proves the JSON: pointers as in RFC 6901, and no value left out.
func TestMarshal(t *testing.T) {
	var p jsonpatch.Patch
	p.Test("", "metadata", "uid")
	p.Set("1", "metadata", "annotations", "example.com/a~b")
	jsonpatch.Add(&p, 0, []string{"x", "y"}, "list")
	jsonpatch.Add(&p, 2, []string{"x", "y"}, "list")
	const want = `[{"op":"test","path":"/metadata/uid","value":""},` +
		`{"op":"add","path":"/metadata/annotations/example.com~1a~0b","value":"1"},` +
		`{"op":"add","path":"/list","value":["x","y"]},` +
		`{"op":"add","path":"/list/-","value":"x"},` +
		`{"op":"add","path":"/list/-","value":"y"}]`
	if diff := cmp.Diff(want, marshal(t, p)); diff != "" {
		t.Errorf("Marshal (-want +got):\n%s", diff)
	}
}

// TestAddLeavesThePathAlone proves that Add doesn't write into the array of its caller's path.
func TestAddLeavesThePathAlone(t *testing.T) {
	path := []string{"spec", "volumes", "untouched"}
	var p jsonpatch.Patch
	jsonpatch.Add(&p, 1, []int{1}, path[:2]...)
	if diff := cmp.Diff([]string{"spec", "volumes", "untouched"}, path); diff != "" {
		t.Errorf("the path after Add (-want +got):\n%s", diff)
	}
}

func marshal(t *testing.T, p jsonpatch.Patch) string {
	t.Helper()
	content, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func apply(t *testing.T, document string, p jsonpatch.Patch) (string, error) {
	t.Helper()
	patch, err := rfc6902.DecodePatch([]byte(marshal(t, p)))
	if err != nil {
		t.Fatal(err)
	}
	patched, err := patch.Apply([]byte(document))
	return string(patched), err
}

func decode(t *testing.T, document string) any {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(document), &value); err != nil {
		t.Fatalf("decoding %s: %v", document, err)
	}
	return value
}
