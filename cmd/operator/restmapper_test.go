package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestMapper proves that a kind is looked up until it is found, once for each set of versions.
func TestMapper(t *testing.T) {
	task := schema.GroupVersionKind{Group: "api.practice.com", Version: "v1", Kind: "Task"}
	known := meta.NewDefaultRESTMapper([]schema.GroupVersion{task.GroupVersion()})
	counting := &countingMapper{RESTMapper: known}
	m := &mapper{RESTMapper: counting}
	var got []string
	ask := func(versions ...string) {
		found := "none"
		if mapping, err := m.RESTMapping(task.GroupKind(), versions...); err == nil {
			found = mapping.Resource.Version + " " + mapping.Resource.Resource
		}
		got = append(got, found)
	}
	ask("v1")
	known.Add(task, meta.RESTScopeNamespace)
	ask("v1")
	ask("v1")
	ask("v2")
	ask("v2", "v1")
	ask()
	ask()
	if diff := cmp.Diff([]string{"none", "v1 tasks", "v1 tasks", "none", "v1 tasks", "v1 tasks", "v1 tasks"}, got); diff != "" {
		t.Errorf("the resources (-want +got):\n%s", diff)
	}
	if want := 5; counting.asked != want {
		t.Errorf("it was looked for %d times, want %d", counting.asked, want)
	}
}

type countingMapper struct {
	meta.RESTMapper

	asked int
}

func (m *countingMapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	m.asked++
	return m.RESTMapper.RESTMapping(kind, versions...)
}
