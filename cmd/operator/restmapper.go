package main

import (
	"net/http"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// mapper caches the resource of each kind. controller-runtime's mapper asks all groups that it knows each time, for each event of a Pod
// that a Task owns and for each patch: 13% of the garbage and 4% of the CPU time of the operator (docs/benchmarks.md). Entries stay valid,
// because a kind keeps its resource and scope.
type mapper struct {
	meta.RESTMapper

	found sync.Map // *meta.RESTMapping by kind
}

func newMapper(config *rest.Config, client *http.Client) (meta.RESTMapper, error) {
	dynamic, err := apiutil.NewDynamicRESTMapper(config, client)
	if err != nil {
		return nil, err
	}
	return &mapper{RESTMapper: dynamic}, nil
}

// RESTMapping implements meta.RESTMapper. It does not cache failures.
func (m *mapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	key := kind.WithVersion(strings.Join(versions, ","))
	if mapping, ok := m.found.Load(key); ok {
		return mapping.(*meta.RESTMapping), nil
	}
	mapping, err := m.RESTMapper.RESTMapping(kind, versions...)
	if err == nil {
		m.found.Store(key, mapping)
	}
	return mapping, err
}
