package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRecord proves that a record is read as it was written, over an older one, and that no other file stays.
func TestRecord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run", "cluster.json")
	old := record{State: "/old", Processes: map[string]process{"etcd": {1, "2"}}}
	want := record{
		State:          "/c d/.cluster",
		MadeFolders:    []string{"/var/lib/cni"},
		KernelSettings: map[string]string{"kernel/panic": "0"},
		Processes:      map[string]process{"etcd": {42, "4711"}, "kubelet": {43, "4712"}},
	}
	for _, r := range []record{old, want} {
		if err := r.write(file); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readRecord(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if files := filesBelow(t, filepath.Dir(file)); len(files) != 1 {
		t.Errorf("files: got %q, want the record only", files)
	}
}

// TestReadRecord proves that a missing record is an empty one to which processes can be added, and that an unreadable one is an error with
// its name: an empty record would hide the cluster's remains.
func TestReadRecord(t *testing.T) {
	dir := t.TempDir()
	got, err := readRecord(filepath.Join(dir, "none"))
	if err != nil {
		t.Fatal(err)
	}
	got.Processes["etcd"] = process{1, "2"}
	if diff := cmp.Diff(record{Processes: map[string]process{"etcd": {1, "2"}}}, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}

	bad := filepath.Join(dir, "bad.json")
	if err := os.WriteFile(bad, []byte(`{"state": "/c`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readRecord(bad); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("reading half a record: got error %v, want one that names the file", err)
	}
}

// TestAliveComponents proves that it lists, in order, the components whose process still runs.
func TestAliveComponents(t *testing.T) {
	alive := process{os.Getpid(), startTime(os.Getpid())}
	r := record{Processes: map[string]process{"kubelet": alive, "etcd": {1 << 30, "1"}, "containerd": alive, "registry": {}}}
	if diff := cmp.Diff([]string{"containerd", "kubelet"}, r.aliveComponents()); diff != "" {
		t.Errorf("alive (-want +got):\n%s", diff)
	}
}

// TestRepairable proves that `up` continues with a running cluster of this clone, and replaces any other, even a running one whose files
// are gone.
func TestRepairable(t *testing.T) {
	c, empty := newCluster(t.TempDir(), ""), newCluster(t.TempDir(), "")
	if err := writeFiles(filepath.Join(c.state, "config"), settings{State: c.state, Run: runDir}); err != nil {
		t.Fatal(err)
	}
	alive := map[string]process{"etcd": {os.Getpid(), startTime(os.Getpid())}, "kubelet": {}}
	dead := map[string]process{"etcd": {1 << 30, "1"}}
	for name, test := range map[string]struct {
		cluster *cluster
		record  record
		want    bool
	}{
		"one has died":        {c, record{State: c.state, Processes: alive}, true},
		"all have died":       {c, record{State: c.state, Processes: dead}, false},
		"another clone's":     {c, record{State: empty.state, Processes: alive}, false},
		"its files are gone":  {empty, record{State: empty.state, Processes: alive}, false},
		"there has been none": {c, record{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.cluster.repairable(test.record); got != test.want {
				t.Errorf("repairable: got %t, want %t", got, test.want)
			}
		})
	}
}

// TestAwait proves that waiting ends if the condition holds, if a component dies (with the end of its log), and if the command is
// interrupted.
func TestAwait(t *testing.T) {
	c := newCluster(t.TempDir(), "")
	writeLog(t, c, "etcd", "starting\npanic: no space left\n")
	alive := process{os.Getpid(), startTime(os.Getpid())}
	dead := process{1 << 30, "1"}
	no := func(context.Context) bool { return false }
	yes := func(context.Context) bool { return true }
	interrupted, interrupt := context.WithCancel(t.Context())
	interrupt()

	for name, test := range map[string]struct {
		ctx       context.Context //nolint:containedctx // a table's parameter
		processes map[string]process
		holds     func(context.Context) bool
		want      string
		wantIs    error
	}{
		"it holds": {ctx: t.Context(), processes: map[string]process{"etcd": alive}, holds: yes},
		"dead": {
			ctx: t.Context(), processes: map[string]process{"etcd": dead, "registry": alive}, holds: no,
			want: "etcd has died while the cluster was starting; the end of its log:\nstarting\npanic: no space left\n",
		},
		"interrupted": {ctx: interrupted, processes: map[string]process{"etcd": alive}, holds: no, wantIs: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.await(test.ctx, record{Processes: test.processes}, "it is ready", test.holds)
			if test.wantIs != nil {
				if !errors.Is(err, test.wantIs) {
					t.Errorf("got error %v, want %v", err, test.wantIs)
				}
				return
			}
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTail proves that the end of a log is its last 15 lines, each ended, whether the last one is or not.
func TestTail(t *testing.T) {
	lines := func(first, last int) string {
		var text strings.Builder
		for i := first; i <= last; i++ {
			fmt.Fprintf(&text, "line %d\n", i)
		}
		return text.String()
	}
	for name, test := range map[string]struct{ log, want string }{
		"empty":             {"", "\n"},
		"one line":          {"line 1\n", lines(1, 1)},
		"no line feed":      {"line 1\nline 2", lines(1, 2)},
		"as many":           {lines(1, 15), lines(1, 15)},
		"one more":          {lines(1, 16), lines(2, 16)},
		"many":              {lines(1, 400), lines(386, 400)},
		"empty lines count": {strings.Repeat("\n", 20), strings.Repeat("\n", 15)},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t.TempDir(), "")
			writeLog(t, c, "etcd", test.log)
			if diff := cmp.Diff(test.want, c.tail("etcd")); diff != "" {
				t.Errorf("tail (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no log", func(t *testing.T) {
		c := newCluster(t.TempDir(), "")
		if got := c.tail("etcd"); !strings.Contains(got, c.logFile("etcd")) || !strings.HasSuffix(got, "\n") {
			t.Errorf("tail: got %q, want a line that names the file", got)
		}
	})
}

// TestCheckPath proves that a clone is refused if its path makes the kubelet's socket one character too long, or more.
func TestCheckPath(t *testing.T) {
	clone := func(length int) string { return "/" + strings.Repeat("x", length-1) }
	const longest = 107 - len("/.cluster/kubelet/pod-resources/kubelet.sock")
	if err := newCluster(clone(longest), "").checkPath(); err != nil {
		t.Errorf("a path of %d characters: %v", longest, err)
	}
	err := newCluster(clone(longest+1), "").checkPath()
	if err == nil || !strings.Contains(err.Error(), "1 bytes too long") {
		t.Errorf("a path of %d characters: got error %v, want that it is 1 byte too long", longest+1, err)
	}
}

func writeLog(t *testing.T, c *cluster, component, text string) {
	t.Helper()
	file := c.logFile(component)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
