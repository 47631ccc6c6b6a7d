//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/oci"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// Addresses from test/cluster/network.go. operator.yaml has them, too.
const (
	clusterRegistry = "198.18.0.1:5000"
	hostRegistry    = "198.18.0.2:5000"
)

// TestImageCommands proves that a step without a command runs what the same container runs without taskflow, word for word, for every form
// of the image's configuration and of the args.
func TestImageCommands(t *testing.T) {
	t.Parallel()
	const longestArgument = 128<<10 - 1 // MAX_ARG_STRLEN without the final zero, execve(2)
	platform := oci.HostPlatform()
	another := v1.Platform{OS: "linux", Architecture: "s390x"}
	image := func(config v1.Config) remote.Taggable { return argvImage(t, platform, config) }
	entrypoint := v1.Config{Entrypoint: []string{"/opt/argv", "fixed", "two words"}}
	both := v1.Config{Entrypoint: []string{"/opt/argv", "fixed"}, Cmd: []string{"from", "CMD"}}
	args := []string{"$(GREETING)", "$$(GREETING)", "$$", "$(MISSING)", "", "two\nlines", "ü", "--command", "*"}

	rows := map[string]struct {
		image remote.Taggable
		args  []string
	}{
		"entrypoint":           {image(entrypoint), nil},
		"entrypoint-args":      {image(entrypoint), args},
		"entrypoint-no-args":   {image(entrypoint), []string{}},
		"cmd":                  {image(v1.Config{Cmd: []string{"/opt/argv", "cmd"}}), nil},
		"cmd-args":             {image(v1.Config{Cmd: []string{"/bin/false"}}), slices.Concat([]string{"/opt/argv"}, args)},
		"both":                 {image(both), nil},
		"both-args":            {image(both), args},
		"neither-args":         {image(v1.Config{}), slices.Concat([]string{"/opt/argv"}, args)},
		"taken-back":           {image(v1.Config{Entrypoint: []string{""}, Cmd: []string{"/opt/argv", "cmd"}}), nil},
		"taken-back-args":      {image(v1.Config{Entrypoint: []string{""}, Cmd: []string{"/bin/false"}}), []string{"/opt/argv"}},
		"shell-form":           {image(v1.Config{Entrypoint: []string{"/bin/sh", "-c", `exec /opt/argv "$GREETING" $0 $(echo run)`}}), nil},
		"shell-form-args":      {image(v1.Config{Entrypoint: []string{"/bin/sh", "-c", `exec /opt/argv "$0" "$@"`}}), args},
		"shell-form-cmd":       {image(v1.Config{Cmd: []string{"/bin/sh", "-c", `exec /opt/argv "${GREETING}" $(echo a b)`}}), nil},
		"variables-entrypoint": {image(v1.Config{Entrypoint: slices.Concat([]string{"/opt/argv"}, args, []string{"${GREETING}", "$", "$("})}), nil},
		"variables-cmd":        {image(v1.Config{Entrypoint: []string{"/opt/argv"}, Cmd: args}), nil},
		"variables-both":       {image(v1.Config{Entrypoint: []string{"/opt/argv", "$(GREETING)"}}), []string{"$(GREETING)"}},
		"in-path":              {image(v1.Config{Entrypoint: []string{"argv"}, Env: []string{"PATH=/bin:/opt"}}), args},
		"directory-and-user":   {image(v1.Config{Entrypoint: []string{"./argv"}, WorkingDir: "/opt", User: "1234:2345"}), nil},
		"environment":          {image(v1.Config{Entrypoint: []string{"/opt/argv"}, Env: []string{"GREETING=the image's"}}), nil},
		"longest-argument":     {image(entrypoint), []string{strings.Repeat("x", longestArgument)}},
		"index":                {index(entry(platform, image(entrypoint)), attestation(t)), nil},
		"nested-index":         {mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index(entry(platform, image(entrypoint)))}), nil},
		"platforms": {index(
			entry(another, argvImage(t, another, v1.Config{Entrypoint: []string{"/bin/false"}})),
			entry(platform, image(v1.Config{Entrypoint: []string{"/opt/argv", "$(GREETING)", "<&>"}, Cmd: []string{"cmd"}}))), nil},
		"platforms-args": {index(
			entry(another, argvImage(t, another, v1.Config{Entrypoint: []string{"/bin/false"}})),
			entry(platform, image(both))), args},
	}

	namespace := cluster.NewNamespace(t, "baseline")
	var containers []corev1.Container
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		containers = append(containers, corev1.Container{
			Name:            row,
			Image:           push(t, clusterRegistry+"/e2e/argv:"+row, rows[row].image),
			ImagePullPolicy: corev1.PullAlways,
			Args:            rows[row].args,
		})
		if row != "environment" {
			containers[len(containers)-1].Env = []corev1.EnvVar{{Name: "GREETING", Value: "hello"}}
		}
	}
	plain := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: namespace},
		Spec:       corev1.PodSpec{Containers: containers, RestartPolicy: corev1.RestartPolicyNever},
	}
	cluster.Make(t, plain)
	task := harness.NewTask(namespace, "wrapped", containers...)
	for i := range task.Spec.Steps {
		task.Spec.Steps[i].OnError = v1alpha1.OnErrorContinue // so that every row runs
	}
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to end", harness.InPhase(v1alpha1.TaskSucceeded))
	wait.For(t, "the plain Pod to succeed", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(plain), plain); err != nil {
			return err
		}
		if plain.Status.Phase != corev1.PodSucceeded {
			return fmt.Errorf("its phase is %s: %+v", plain.Status.Phase, plain.Status.ContainerStatuses)
		}
		return nil
	})
	for _, container := range containers {
		want := cluster.Log(t, namespace, "plain", container.Name)
		if !strings.Contains(want, "/argv\"\n") && !strings.Contains(want, "0 \"argv\"") {
			t.Errorf("%s without taskflow: %q", container.Name, want)
		}
		if diff := cmp.Diff(want, cluster.Log(t, namespace, "wrapped", container.Name)); diff != "" {
			t.Errorf("%s (-without +with taskflow):\n%s", container.Name, diff)
		}
	}
}

// argvImage returns busybox with the program argv in /opt.
func argvImage(t *testing.T, platform v1.Platform, config v1.Config) v1.Image {
	t.Helper()
	busybox, err := name.ParseReference(clusterRegistry+"/library/busybox:1.28", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	base, err := remote.Image(busybox, remote.WithPlatform(oci.HostPlatform()), remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	program, err := argvProgram()
	if err != nil {
		t.Fatal(err)
	}
	top, err := oci.Image(platform, []oci.File{{Path: "opt/", Mode: 0o755}, {Path: "opt/argv", Mode: 0o755, Content: program}}, config)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := top.Layers()
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = platform.OS, platform.Architecture, config
	if image, err = mutate.ConfigFile(image, file); err != nil {
		t.Fatal(err)
	}
	return image
}

// argvProgram builds argv once.
var argvProgram = sync.OnceValues(func() ([]byte, error) { return harness.BuildProgram("./argv") })

func entry(platform v1.Platform, image remote.Taggable) mutate.IndexAddendum {
	return mutate.IndexAddendum{Add: image.(mutate.Appendable), Descriptor: v1.Descriptor{Platform: &platform}}
}

// attestation returns an entry like the one that BuildKit lists beside an image. Careless clients mistake it for an image of another
// platform.
func attestation(t *testing.T) mutate.IndexAddendum {
	unknown := v1.Platform{OS: "unknown", Architecture: "unknown"}
	return entry(unknown, argvImage(t, unknown, v1.Config{Entrypoint: []string{"/bin/false"}}))
}

func index(entries ...mutate.IndexAddendum) v1.ImageIndex {
	return mutate.AppendManifests(empty.Index, entries...)
}

// push pushes the content and returns its reference.
func push(t *testing.T, ref string, content remote.Taggable, options ...remote.Option) string {
	t.Helper()
	parsed, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Push(parsed, content, append(options, remote.WithContext(t.Context()))...); err != nil {
		t.Fatal(err)
	}
	return ref
}
