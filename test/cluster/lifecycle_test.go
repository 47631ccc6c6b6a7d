//go:build lifecycle

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestLifecycle proves, on this machine, that the cluster's commands do what they promise. It ends a running cluster.
func TestLifecycle(t *testing.T) {
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "cluster")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the command: %v: %s", err, output)
	}
	lock, err := os.OpenFile(filepath.Join(t.TempDir(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	cluster := func(command string) (output string, err error) {
		began := time.Now()
		c := exec.CommandContext(t.Context(), program, command)
		c.ExtraFiles = []*os.File{lock} // open in the command, like a caller's lock
		c.Dir = root
		content, err := c.CombinedOutput()
		t.Logf("%s took %s: %s", command, time.Since(began).Round(100*time.Millisecond), content)
		return string(content), err
	}
	must := func(command string) string {
		t.Helper()
		output, err := cluster(command)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return output
	}
	components := func() map[string]process {
		t.Helper()
		r, err := readRecord(recordFile)
		if err != nil {
			t.Fatal(err)
		}
		return r.Processes
	}

	must("up")
	must("status")

	t.Run("the daemons don't hold what their caller has open", func(t *testing.T) {
		for name, component := range components() {
			fds := fmt.Sprintf("/proc/%d/fd", component.PID)
			entries, err := os.ReadDir(fds)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				if target, err := os.Readlink(filepath.Join(fds, entry.Name())); err == nil && target == lock.Name() {
					t.Errorf("%s holds %s", name, target)
				}
			}
		}
	})

	t.Run("up does nothing where all is well", func(t *testing.T) {
		before := components()
		must("up")
		if diff := cmp.Diff(before, components()); diff != "" {
			t.Errorf("processes (-before +after):\n%s", diff)
		}
	})

	t.Run("a component that died is reported, and started again", func(t *testing.T) {
		before := components()
		kill(t, before["kube-scheduler"].PID)
		if output, err := cluster("status"); err == nil || !strings.Contains(output, "the end of the log of kube-scheduler") {
			t.Errorf("status says nothing of the dead scheduler: %v: %s", err, output)
		}
		if output := must("up"); !strings.Contains(output, "kube-scheduler has died") {
			t.Errorf("up says nothing of the dead scheduler: %s", output)
		}
		after := components()
		if before["kube-scheduler"] == after["kube-scheduler"] || before["kubelet"] != after["kubelet"] {
			t.Errorf("the processes were %v and are %v", before, after)
		}
		must("status")
	})

	t.Run("the API server is started again after etcd", func(t *testing.T) {
		before := components()
		kill(t, before["kube-apiserver"].PID)
		kill(t, before["etcd"].PID)
		must("up")
		must("status")
	})

	kubectl := func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), "sh", append([]string{"-ec", `eval "$("$0" env)"; exec kubectl "$@"`, program}, args...)...)
		c.Dir = root
		output, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, output)
		}
		return string(output)
	}
	runPod := func() {
		kubectl("run", "lifecycle", "--image=busybox", "--command", "--", "sleep", "3600")
		kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/lifecycle")
	}

	t.Run("up after all processes were killed", func(t *testing.T) {
		runPod()
		pids, err := clusterProcesses()
		if err != nil {
			t.Fatal(err)
		}
		// These are the daemons, the shim of the Pod, and its two containers.
		if want := len(components()) + 3; len(pids) < want {
			t.Fatalf("there are only %d processes, and not %d", len(pids), want)
		}
		for _, pid := range pids {
			kill(t, pid)
		}
		must("up")
		must("status")
		runPod()
	})

	t.Run("up after the files were removed under a cluster that runs", func(t *testing.T) {
		before := components()
		for _, dir := range []string{"config", "pki", "logs", "etcd", "registry"} { // without the folders with mounts, which git clean can't remove either
			if err := os.RemoveAll(filepath.Join(root, ".cluster", dir)); err != nil {
				t.Fatal(err)
			}
		}
		must("up")
		after := components()
		for name := range before {
			if before[name] == after[name] {
				t.Errorf("%s still is process %d, without its files", name, after[name].PID)
			}
		}
		must("status")
		if got := must("running"); got != "true\n" {
			t.Errorf("running: got %q, want true", got)
		}
		runPod() // and leave it to down
	})

	for _, name := range []string{"down", "down where there is nothing"} {
		t.Run(name, func(t *testing.T) {
			record, err := readRecord(recordFile)
			if err != nil {
				t.Fatal(err)
			}
			must("down")
			if got := must("running"); got != "false\n" {
				t.Errorf("running: got %q, want false", got)
			}
			wantNothingLeft(t, filepath.Join(root, ".cluster"), record.MadeFolders)
		})
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	if !poll(context.WithoutCancel(t.Context()), 10*time.Second, func() bool { return startTime(pid) == "" }) {
		t.Fatalf("process %d doesn't end", pid)
	}
}

// wantNothingLeft looks for processes, mounts, interfaces, namespaces, cgroups and files.
func wantNothingLeft(t *testing.T, state string, folders []string) {
	t.Helper()
	pids, err := clusterProcesses()
	if err != nil {
		t.Fatal(err)
	}
	if len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
	mountInfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if mounts := mountsBelow(string(mountInfo), append(folders, state, runDir)); len(mounts) > 0 {
		t.Errorf("mounts are left: %v", mounts)
	}
	gone := append([]string{state, runDir, namespacePath(), "/sys/class/net/" + hostInterface}, folders...)
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, hierarchy := range hierarchies {
		gone = append(gone, filepath.Join(hierarchy, cgroupRoot))
	}
	for _, path := range gone {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}
