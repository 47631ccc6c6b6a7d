package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestParseSettings proves that every field of the table in docs/images.md is accepted, and which mistakes are reported at the start.
func TestParseSettings(t *testing.T) {
	const all = `
images:
  mirrors: {docker.io: ["https://mirror.example.com"]}
  caBundle: ""
  plainHTTP: ["registry.local:5000"]
  allowedRegistries: [docker.io, "*.example.com"]
  allowedAddresses: [127.0.0.0/8]
  commands:
  - {image: "registry.local/app:v1", entrypoint: [/app], cmd: [run]}
  timeout: 5s
  tagTTL: 1m
  failureTTL: 10s
  cacheSize: 500
`
	cases := map[string]struct{ content, want string }{
		"all fields":       {all, ""},
		"nothing":          {"", ""},
		"no images":        {"images: {}", ""},
		"unknown part":     {"image: {}", `unknown field "image"`},
		"unknown field":    {"images: {mirror: {}}", `unknown field "mirror"`},
		"a field twice":    {"images: {timeout: 1s, timeout: 2s}", `"timeout" already set`},
		"no YAML":          {"images: [", "did not find expected node content"},
		"not a duration":   {"images: {timeout: 5}", "cannot unmarshal number"},
		"too long":         {"images: {timeout: 10s}", "images.timeout: 10s must be above 0s and at most 9s"},
		"a broken mirror":  {"images: {mirrors: {docker.io: [mirror]}}", `images.mirrors["docker.io"]: "mirror" must be http://HOST[:PORT] or https://HOST[:PORT]`},
		"a broken command": {"images: {commands: [{image: a}]}", `images.commands: "a" has neither entrypoint nor cmd; set one of them`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := resolverOf([]byte(c.content), nil)
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestReread proves that a change of the file takes effect without a restart, also if the file is replaced as the kubelet replaces the
// files of a ConfigMap. An unusable file leaves the previous configuration in place.
func TestReread(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	write := func(command string) {
		t.Helper()
		project(t, dir, fmt.Sprintf("images: {commands: [{image: app, cmd: [%s]}]}", command))
	}
	write("first")
	c, err := newCommands(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantCommand := func(what, want string) {
		t.Helper()
		got, err := c.Resolve(t.Context(), entrypoint.Request{Image: "app"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(entrypoint.Command{Cmd: []string{want}}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	wantCommand("at first", "first")

	write("[")
	if err := c.reread(); err == nil || !strings.HasPrefix(err.Error(), file+": ") {
		t.Errorf("reading a broken file: %v, want an error that names it", err)
	}
	wantCommand("with a broken file", "first")
	if err := c.reread(); err != nil {
		t.Errorf("the second error of the same content: %v", err)
	}

	write("first")
	if err := c.reread(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := c.reread(); err == nil {
		t.Error("reading a file that is gone has no error")
	}
	if err := c.reread(); err != nil {
		t.Errorf("the second error of the file that is gone: %v", err)
	}
	wantValid(t, 0)
	wantCommand("with the file gone", "first")
	write("first")
	if err := c.reread(); err != nil {
		t.Fatal(err)
	}
	wantValid(t, 1)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	c.every = time.Millisecond
	go func() { ended <- c.Start(ctx) }()
	write("third")
	wait.For(t, "the new file to take effect", func(ctx context.Context) error {
		got, err := c.Resolve(ctx, entrypoint.Request{Image: "app"})
		if err == nil && got.Cmd[0] != "third" {
			err = fmt.Errorf("the command is %v", got.Cmd)
		}
		return err
	})
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Start: %v", err)
	}
}

// project writes config.yaml as the kubelet writes the files of a ConfigMap: the file is a link through ..data into a folder, which is
// replaced at each change (k8s.io/kubernetes/pkg/volume/util, AtomicWriter.Write).
func project(t *testing.T, dir, content string) {
	t.Helper()
	const data, name = "..data", "config.yaml"
	before, _ := os.Readlink(filepath.Join(dir, data)) // absent at first
	folder := filepath.Join(dir, ".."+rand.Text())
	for _, err := range []error{
		os.Mkdir(folder, 0o700),
		os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600),
		os.Symlink(filepath.Base(folder), filepath.Join(dir, data+"_tmp")),
		os.Rename(filepath.Join(dir, data+"_tmp"), filepath.Join(dir, data)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(data, name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	if before != "" {
		if err := os.RemoveAll(filepath.Join(dir, before)); err != nil {
			t.Fatal(err)
		}
	}
}

// wantValid checks the value of taskflow_config_valid.
func wantValid(t *testing.T, want float64) {
	t.Helper()
	var metric dto.Metric
	if err := fileValid.Write(&metric); err != nil {
		t.Fatal(err)
	}
	if got := metric.GetGauge().GetValue(); got != want {
		t.Errorf("taskflow_config_valid is %v, want %v", got, want)
	}
}

// TestNewCommandsRefuses proves that the operator does not start with an unusable file.
func TestNewCommandsRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if _, err := newCommands(file, nil); err == nil {
		t.Error("newCommands of a missing file has no error")
	}
	if err := os.WriteFile(file, []byte("images: {cacheSize: -1}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := newCommands(file, nil)
	if diff := cmp.Diff(file+": images.cacheSize: -1 must be above 0 and at most 10000", fmt.Sprint(err)); diff != "" {
		t.Errorf("newCommands (-want +got):\n%s", diff)
	}
	if _, err := newCommands("", nil); err != nil {
		t.Errorf("newCommands without a file: %v", err)
	}
}
