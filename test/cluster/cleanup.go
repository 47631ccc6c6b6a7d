package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cgroupRoot is the cgroup below which the kubelet puts all Pods. The name is fixed, so that cleanUp finds the remains of an earlier
// cluster.
const cgroupRoot = "taskflow-test"

// fixedFolders are places outside of the cluster's own folders to which the kubelet and the CNI library write and which no setting moves.
// They are removed at the end if the cluster created them.
var fixedFolders = []string{"/var/lib/kubelet", "/var/lib/cni", "/var/log/containers"}

// kernelSettings are the files below /proc/sys to which the kubelet writes its own values, for the whole machine. cleanUp restores their
// values.
var kernelSettings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// cleanUp removes everything that a cluster leaves: processes, mounts, network, cgroups and files. It doesn't depend on the state of that
// cluster or of the clone that created it, and can be called again after an interruption.
func cleanUp(ctx context.Context, old record) error {
	// The record is removed last, because it lists what to remove.
	folders := slices.Concat([]string{old.State}, old.MadeFolders, []string{runDir})
	if err := killAll(ctx); err != nil {
		return err
	}
	if err := unmountBelow(folders); err != nil {
		return err
	}
	if err := removeNetwork(ctx); err != nil {
		return err
	}
	if err := removeCgroups(ctx); err != nil {
		return err
	}
	if err := writeSettings("/proc/sys", old.KernelSettings); err != nil {
		return err
	}
	for _, dir := range folders {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// readSettings reads files of one value below dir, if they exist.
func readSettings(dir string, files []string) (map[string]string, error) {
	values := map[string]string{}
	for _, file := range files {
		value, err := os.ReadFile(filepath.Join(dir, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		values[file] = strings.TrimSpace(string(value))
	}
	return values, nil
}

// writeSettings writes the values to the files below dir whose values differ.
func writeSettings(dir string, values map[string]string) error {
	now, err := readSettings(dir, slices.Collect(maps.Keys(values)))
	if err != nil {
		return err
	}
	for file, value := range values {
		if now[file] == value {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// killAll kills every process of the cluster, and repeats until there is none, because a shim can start containers until it is gone.
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

// unmountBelow unmounts everything at or below the folders. It fails if a mount stays: a Pod's volume can be a folder of the host, and
// removing the mounted files would empty it.
func unmountBelow(folders []string) error {
	mountInfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, mount := range mountsBelow(string(mountInfo), folders) {
		// The unmount is lazy: no process uses the mount, but the kernel may still be ending those that did.
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unmounting %s: %w", mount, err)
		}
	}
	if mountInfo, err = os.ReadFile("/proc/self/mountinfo"); err != nil {
		return err
	}
	if left := mountsBelow(string(mountInfo), folders); len(left) > 0 {
		return fmt.Errorf("these are still mounted: %s", strings.Join(left, " "))
	}
	return nil
}

// mountsBelow lists the mount points at or below the folders, last mounted first, from the text of
// /proc/self/mountinfo (proc_pid_mountinfo(5)).
func mountsBelow(mountInfo string, folders []string) []string {
	// The kernel writes blanks and backslashes as octal escapes.
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var mounts []string
	for line := range strings.Lines(mountInfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unescape.Replace(fields[4])
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

// makeCgroups creates the cluster's cgroup in each hierarchy. The kubelet expects it.
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
		if root == "/sys/fs/cgroup" { // version 2: each level delegates controllers to the next
			if err := delegateControllers(root, cgroupRoot); err != nil {
				return err
			}
		}
		// cpuset of version 1: a new group has no CPUs and no memory nodes, and accepts no process until it has.
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

// podControllers are the controllers of version 2 that the kubelet needs for its groups, if the kernel has them: see
// getSupportedUnifiedControllers in k8s.io/kubernetes/pkg/kubelet/cm.
var podControllers = []string{"cpu", "cpuset", "hugetlb", "memory", "pids"}

// delegateControllers lets the root and a group in it, of version 2, delegate the controllers that the kubelet needs. A root that isn't the
// kernel's own, such as a container's, can't do so while it has processes (cgroups(7), "no internal processes"): they move to a group of
// their own, which stays. The entrypoints of kind and k3d do the same.
func delegateControllers(root, group string) error {
	const leaf, attempts = "init", 10
	err := enableControllers(root)
	for attempt := 0; errors.Is(err, syscall.EBUSY) && attempt < attempts; attempt++ { // repeated, because moving processes may have started others
		if err := moveProcesses(root, filepath.Join(root, leaf)); err != nil {
			return fmt.Errorf("moving the processes of %s to the group %s: %w", root, leaf, err)
		}
		err = enableControllers(root)
	}
	if err != nil {
		return err
	}
	return enableControllers(filepath.Join(root, group))
}

// enableControllers lets a group delegate those of podControllers that it has.
func enableControllers(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var enabled []string
	for controller := range strings.FieldsSeq(string(controllers)) {
		if slices.Contains(podControllers, controller) {
			enabled = append(enabled, "+"+controller)
		}
	}
	request := strings.Join(enabled, " ") // all or none
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(request), 0o644); err != nil {
		return fmt.Errorf("enabling the controllers %q in %s: %w", request, dir, err)
	}
	return nil
}

// moveProcesses moves all processes of a group to another one, which it creates.
func moveProcesses(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	pids, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
	if err != nil {
		return err
	}
	procs, err := os.OpenFile(filepath.Join(to, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer procs.Close()
	for pid := range strings.Lines(string(pids)) { // one process per write
		if _, err := procs.WriteString(pid); err != nil && !errors.Is(err, syscall.ESRCH) { // it may have ended
			return err
		}
	}
	return nil
}

// cgroupHierarchies returns the folders of all cgroup hierarchies: one with version 2, several with version 1.
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
		if entry.IsDir() { // the links are other names, such as cpu for cpu,cpuacct
			roots = append(roots, filepath.Join("/sys/fs/cgroup", entry.Name()))
		}
	}
	return roots, nil
}

// clusterCgroups returns the folders of the cluster's cgroups in the hierarchies, parents first.
func clusterCgroups(hierarchies []string) []string {
	var dirs []string
	for _, hierarchy := range hierarchies {
		_ = filepath.WalkDir(filepath.Join(hierarchy, cgroupRoot), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // the group is gone
		})
	}
	return dirs
}

// removeCgroups removes the cluster's cgroups, innermost first. A group stays busy for a moment after its last
// process has ended.
func removeCgroups(ctx context.Context) error {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(clusterCgroups(hierarchies)) {
		var err error
		removed := poll(ctx, 5*time.Second, func() bool {
			err = syscall.Rmdir(dir)
			return err == nil || errors.Is(err, syscall.ENOENT)
		})
		if !removed {
			return fmt.Errorf("removing the cgroup %s: %w", dir, err)
		}
	}
	return nil
}
