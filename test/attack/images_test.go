//go:build e2e

package attack

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/taskflow/taskflow-operator/internal/oci"
)

// imageRegistry returns a working registry that has one small image under these names.
func imageRegistry(t *testing.T, names ...string) http.Handler {
	t.Helper()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	image, err := oci.Image(oci.HostPlatform(), []oci.File{{Path: "app", Mode: 0o555, Content: []byte("app")}}, v1.Config{Entrypoint: []string{"/app"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := oci.Push(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/"+name, image, oci.PlainHTTP); err != nil {
			t.Fatal(err)
		}
	}
	return handler
}
