package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cgroupRoot is the cgroup below which the kubelet puts all Pods. The name is fixed, so that what an earlier cluster
// left is found.
const cgroupRoot = "taskflow-test"

// fixedFolders are places outside of the cluster's own folders which the kubelet, containerd's shims and the CNI
// library write to and which no flag moves. They are removed at the end where the cluster made them.
var fixedFolders = []string{"/var/lib/kubelet", "/run/containerd", "/var/lib/cni"}

// cleanUp removes all that a cluster leaves: processes, mounts, network, cgroups and files. state is the state
// folder of the clone that made it, and it works whatever became of that cluster or of that clone.
func cleanUp(ctx context.Context, state string, madeFolders []string) error {
	if err := killAll(ctx); err != nil {
		return err
	}
	if err := unmountBelow(append([]string{state, runDir}, madeFolders...)); err != nil {
		return err
	}
	if err := removeNetwork(ctx); err != nil {
		return err
	}
	if err := removeCgroups(ctx); err != nil {
		return err
	}
	for _, dir := range append([]string{state, runDir}, madeFolders...) {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// killAll ends every process of the cluster. It looks again until there is none, since containers can
// be started until their shim is gone.
func killAll(ctx context.Context) error {
	var pids []int
	var err error
	gone := poll(ctx, 20*time.Second, func() bool {
		pids, err = clusterProcesses()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
		return err != nil || len(pids) == 0
	})
	if err == nil && !gone {
		err = fmt.Errorf("the processes %v don't end", pids)
	}
	return err
}

// unmountBelow unmounts all that is mounted at or below the folders.
func unmountBelow(folders []string) error {
	mountInfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, mount := range mountsBelow(string(mountInfo), folders) {
		// Lazily: nothing uses it any more, but the kernel may still be busy with the end of what did.
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unmounting %s: %w", mount, err)
		}
	}
	return nil
}

// mountsBelow lists the mount points at or below the folders, last mounted first, from the text of
// /proc/self/mountinfo (proc_pid_mountinfo(5)).
func mountsBelow(mountInfo string, folders []string) []string {
	// The kernel writes blanks as octal escapes, and marks a mount point that was removed.
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var mounts []string
	for line := range strings.Lines(mountInfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := strings.TrimSuffix(unescape.Replace(fields[4]), "//deleted")
		for _, folder := range folders {
			if point == folder || strings.HasPrefix(point, folder+"/") {
				mounts = append(mounts, point)
				break
			}
		}
	}
	slices.Reverse(mounts)
	return mounts
}

// makeCgroups makes the cluster's cgroup in each hierarchy; the kubelet wants to find it.
func makeCgroups() error {
	roots, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, cgroupRoot)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making a cgroup: %w", err)
		}
		if root == "/sys/fs/cgroup" { // version 2: controllers are handed down level by level
			if err := delegateControllers(root, dir); err != nil {
				return err
			}
		}
		// cpuset of version 1: a new group has no CPUs and no memory nodes, and takes no process until it has.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(root, file))
			if err == nil && root != "/sys/fs/cgroup" {
				err = os.WriteFile(filepath.Join(dir, file), value, 0o644)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("setting %s: %w", file, err)
			}
		}
	}
	return nil
}

// delegateControllers lets each of the nested version 2 groups hand all its controllers down.
func delegateControllers(dirs ...string) error {
	for _, dir := range dirs {
		controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, controller := range strings.Fields(string(controllers)) {
			file := filepath.Join(dir, "cgroup.subtree_control")
			if err := os.WriteFile(file, []byte("+"+controller), 0o644); err != nil {
				return fmt.Errorf("enabling the controller %s in %s: %w", controller, dir, err)
			}
		}
	}
	return nil
}

// cgroupHierarchies are the folders of all cgroup hierarchies: one with version 2, several with version 1.
func cgroupHierarchies() ([]string, error) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return []string{"/sys/fs/cgroup"}, nil
	}
	entries, err := os.ReadDir("/sys/fs/cgroup")
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, entry := range entries {
		if entry.IsDir() { // the links are second names, such as cpu for cpu,cpuacct
			roots = append(roots, filepath.Join("/sys/fs/cgroup", entry.Name()))
		}
	}
	return roots, nil
}

// removeCgroups removes the cluster's cgroups, innermost first. A group stays busy for a moment after its last
// process has ended.
func removeCgroups(ctx context.Context) error {
	roots, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(root, cgroupRoot), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // what is gone is gone
		})
		if err != nil {
			return err
		}
		slices.Reverse(dirs)
		for _, dir := range dirs {
			var err error
			removed := poll(ctx, 5*time.Second, func() bool {
				err = syscall.Rmdir(dir)
				return err == nil || errors.Is(err, syscall.ENOENT)
			})
			if !removed {
				return fmt.Errorf("removing the cgroup %s: %w", dir, err)
			}
		}
	}
	return nil
}
