package entrypoint_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestResolve proves which command is read from each form of image and index, and the error for each form that is refused permanently.
func TestResolve(t *testing.T) {
	const (
		notLinux = `image "IMAGE" is not built for linux; set an image that is`
		nothing  = `image "IMAGE" has neither ENTRYPOINT nor CMD; ` + setCommand
	)
	host := serve(t, newRegistry())
	unreadable := unresolved("IMAGE", host, "returned content that is not an image")
	attestation := entry{"unknown/unknown", dockerImage(t, "unknown/unknown", other)}
	cases := map[string]struct {
		content      remote.Taggable
		ref          string // TAG and DIGEST stand for the content's. Default: ":TAG".
		architecture string
		hasArgs      bool
		want         outcome
	}{
		"Docker image by tag": {
			content: dockerImage(t, "linux/amd64", app),
			want:    outcome{Command: appCommand},
		},
		"Docker image by digest": {
			content: dockerImage(t, "linux/amd64", app),
			ref:     "@DIGEST",
			want:    outcome{Command: appCommand},
		},
		"OCI image by tag": {
			content: ociImage(t, "linux/amd64", app),
			want:    outcome{Command: appCommand},
		},
		"OCI image by digest": {
			content: ociImage(t, "linux/amd64", app),
			ref:     "@DIGEST",
			want:    outcome{Command: appCommand},
		},
		"image by tag and digest": {
			content: ociImage(t, "linux/amd64", app),
			ref:     ":TAG@DIGEST",
			want:    outcome{Command: appCommand},
		},
		"ENTRYPOINT": {
			content: dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{"/app"}}),
			want:    outcome{Command: entrypoint.Command{Entrypoint: []string{"/app"}}},
		},
		"CMD": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{"sh"}}),
			want:    outcome{Command: entrypoint.Command{Cmd: []string{"sh"}}},
		},
		"neither": {
			content: dockerImage(t, "linux/amd64", v1.Config{}),
			want:    outcome{Sentence: nothing, Permanent: true},
		},
		"ENTRYPOINT taken back, as containerd reads it": {
			content: dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{""}, Cmd: []string{"sh"}}),
			want:    outcome{Command: entrypoint.Command{Cmd: []string{"sh"}}},
		},
		"ENTRYPOINT taken back, and no CMD": {
			content: dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{""}}),
			want:    outcome{Sentence: nothing, Permanent: true},
		},
		"image for another architecture, which runtimes take as it is": {
			content:      dockerImage(t, "linux/amd64", app),
			architecture: "arm64",
			want:         outcome{Command: appCommand},
		},
		"image without a platform": {
			content: dockerImage(t, "", app),
			want:    outcome{Command: appCommand},
		},
		"image for Windows": {
			content: dockerImage(t, "windows/amd64", app),
			want:    outcome{Sentence: notLinux, Permanent: true},
		},
		"image for what the registry likes": {
			content: dockerImage(t, marker, app),
			want:    outcome{Sentence: notLinux, Permanent: true},
		},

		"Docker index of one platform": {
			content: mutate.IndexMediaType(indexOf(entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}), types.DockerManifestList),
			want:    outcome{Command: appCommand},
		},
		"OCI index of one platform": {
			content: indexOf(entry{"linux/amd64", ociImage(t, "linux/amd64", app)}),
			want:    outcome{Command: appCommand},
		},
		"index by digest": {
			content: indexOf(entry{"linux/amd64", ociImage(t, "linux/amd64", app)}),
			ref:     "@DIGEST",
			want:    outcome{Command: appCommand},
		},
		"several platforms that agree": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", app)},
				entry{"linux/arm/v7", dockerImage(t, "linux/arm/v7", app)}),
			want: outcome{Command: appCommand},
		},
		"several platforms that differ": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{argv("amd64", "", "/app", "run", "--help"), argv("arm64", "", "/other")}, Image: "IMAGE"}},
		},
		"several platforms that differ, the first of them wanted": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"several platforms that differ, the last of them wanted": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", other)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", app)}),
			architecture: "arm64",
			want:         outcome{Command: appCommand},
		},
		"several platforms that differ in CMD alone": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"a"}})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"b"}})}),
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{argv("amd64", "", "/app", "a"), argv("arm64", "", "/app", "b")}, Image: "IMAGE"}},
		},
		"several platforms, one of them without a command": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", app)}),
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{argv("amd64", ""), argv("arm64", "", "/app", "run", "--help")}, Image: "IMAGE"}},
		},
		"several platforms, none with a command": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", v1.Config{})}),
			want: outcome{Sentence: nothing, Permanent: true},
		},
		"variants of the wanted architecture that differ": {
			content: indexOf(
				entry{"linux/arm/v6", dockerImage(t, "linux/arm/v6", app)},
				entry{"linux/arm/v7", dockerImage(t, "linux/arm/v7", other)}),
			architecture: "arm",
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{
				argv("arm", "v6", "/app", "run", "--help"), argv("arm", "v7", "/other"),
			}, Image: "IMAGE"}},
		},
		"attestation beside an image": {
			content: indexOf(entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}, attestation),
			want:    outcome{Command: appCommand},
		},
		"image for Windows beside one for linux": {
			content: indexOf(
				entry{"windows/amd64", dockerImage(t, "windows/amd64", other)},
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"index for Windows": {
			content: indexOf(entry{"windows/amd64", dockerImage(t, "windows/amd64", app)}, attestation),
			want:    outcome{Sentence: notLinux, Permanent: true},
		},
		"index without the wanted architecture": {
			content:      indexOf(entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}),
			architecture: "arm64",
			want: outcome{
				Sentence:  `image "IMAGE" is not built for linux/arm64; set an image that is, or change the nodeSelector on kubernetes.io/arch`,
				Permanent: true,
			},
		},
		"index that leaves the platforms to the images": {
			content: indexOf(
				entry{"", dockerImage(t, "", other)},
				entry{"", dockerImage(t, "windows/amd64", other)},
				entry{"", dockerImage(t, "linux/arm64", other)},
				entry{"", dockerImage(t, "linux/amd64", app)}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"nested index": {
			content: mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: indexOf(
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)},
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)})}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"index nested too deep": {
			content: nest(indexOf(entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}), 3),
			want:    outcome{Sentence: unreadable},
		},
		"more nested indexes than there are": {
			content: manyIndexes(65),
			want:    outcome{Sentence: unreadable},
		},
		"signature beside an image, without a platform": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"", mutate.ConfigMediaType(ociImage(t, "", other), "application/vnd.dev.cosign.simplesigning.v1+json")}),
			want: outcome{Command: appCommand},
		},
		"32-bit image, which a 64-bit node runs for want of another": {
			content: indexOf(
				entry{"linux/386", dockerImage(t, "linux/386", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"more platforms than there are": {
			content: indexOf(slices.Repeat([]entry{{"linux/amd64", dockerImage(t, "linux/amd64", app)}}, 65)...),
			want:    outcome{Sentence: `image "IMAGE" has more than 64 platforms; ` + setCommand, Permanent: true},
		},
		"a command of nearly 64 KiB": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{strings.Repeat("x", 65_500)}}),
			want:    outcome{Command: entrypoint.Command{Cmd: []string{strings.Repeat("x", 65_500)}}},
		},
		"a command of words without text, which take memory, too": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: make([]string, 4<<10)}),
			want:    outcome{Sentence: `image "IMAGE" has a command of more than 64 KiB; ` + setCommand, Permanent: true},
		},
		"a command that is too long to be read": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{strings.Repeat("x", 1<<20)}}),
			want:    outcome{Sentence: `image "IMAGE" has a command of more than 64 KiB; ` + setCommand, Permanent: true},
		},
		"an architecture that is none": {
			content: dockerImage(t, "linux/"+strings.Repeat("x", 65), app),
			want:    outcome{Sentence: unreadable},
		},
		"an architecture in an index that is none": {
			content: indexOf(entry{"linux/" + strings.Repeat("x", 65), dockerImage(t, "linux/amd64", app)}),
			want:    outcome{Sentence: unreadable},
		},
		"a variant that is none": {
			content: dockerImage(t, "linux/arm/"+strings.Repeat("x", 65), app),
			want:    outcome{Sentence: unreadable},
		},
		"index that leaves the operating system out": {
			content: mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
				Add: dockerImage(t, "linux/amd64", app), Descriptor: v1.Descriptor{Platform: &v1.Platform{Architecture: "amd64"}},
			}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"a longer command": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{strings.Repeat("x", 64<<10), "y"}}),
			want:    outcome{Sentence: `image "IMAGE" has a command of more than 64 KiB; ` + setCommand, Permanent: true},
		},
		"neither, with args": {
			content: dockerImage(t, "linux/amd64", v1.Config{}),
			hasArgs: true,
			want:    outcome{},
		},
		"CMD, with args in its place": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{"sh"}}),
			hasArgs: true,
			want:    outcome{},
		},
		"several platforms that differ in CMD alone, with args in its place": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"a"}})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"b"}})}),
			hasArgs: true,
			want:    outcome{Command: entrypoint.Command{Entrypoint: []string{"/app"}}},
		},
		"several platforms that differ, with args": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			hasArgs: true,
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{
				argv("amd64", "", "/app", "run"), argv("arm64", "", "/other"),
			}, Image: "IMAGE"}},
		},
		"several platforms that differ, in more words than fit": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{strings.Repeat("\n", 60<<10)}})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			want: outcome{
				Sentence: `image "IMAGE" has platform-specific commands that are too long; ` +
					`set command, or a nodeSelector on kubernetes.io/arch`,
				Permanent: true,
			},
		},
		"empty index": {
			content: empty.Index,
			want:    outcome{Sentence: notLinux, Permanent: true},
		},
	}
	resolver := newResolver(t, entrypoint.Options{})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tag := strings.Map(toTag, name)
			digest := push(t, host+"/app:"+tag, c.content)
			if c.ref == "" {
				c.ref = ":TAG"
			}
			image := host + "/app" + strings.NewReplacer("TAG", tag, "DIGEST", digest).Replace(c.ref)
			c.want.Sentence = strings.Replace(c.want.Sentence, "IMAGE", image, 1)
			c.want.Command.Image = strings.Replace(c.want.Command.Image, "IMAGE", image+"@"+digest, 1)

			if diff := cmp.Diff(c.want, resolve(t, resolver, entrypoint.Request{Image: image, Architecture: c.architecture, HasArgs: c.hasArgs})); diff != "" {
				t.Errorf("Resolve(%q, %q) (-want +got):\n%s", image, c.architecture, diff)
			}
		})
	}
}

func argv(architecture, variant string, words ...string) contract.PlatformArgv {
	return contract.PlatformArgv{Platform: contract.Platform{Architecture: architecture, Variant: variant}, Argv: words}
}

// TestResolveMediaTypeWithCharset proves that an index is recognised if the registry adds a parameter to its media type.
func TestResolveMediaTypeWithCharset(t *testing.T) {
	behind := newRegistry()
	content := indexOf(
		entry{"linux/amd64", dockerImage(t, "linux/amd64", other)},
		entry{"linux/arm64", dockerImage(t, "linux/arm64", app)})
	push(t, serve(t, behind)+"/app:v1", content)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		behind.ServeHTTP(charsetWriter{w}, r)
	}))

	got := resolve(t, newResolver(t, entrypoint.Options{}), entrypoint.Request{Image: host + "/app:v1", Architecture: "arm64"})
	if diff := cmp.Diff(outcome{Command: appCommand}, got); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
}

type charsetWriter struct {
	http.ResponseWriter
}

func (w charsetWriter) WriteHeader(code int) {
	if mediaType := w.Header().Get("Content-Type"); mediaType != "" {
		w.Header().Set("Content-Type", mediaType+"; charset=utf-8")
	}
	w.ResponseWriter.WriteHeader(code)
}
