//go:build linux

package agent

import (
	"bytes"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The kubelet bind-mounts a subPath when it starts the container, and the runtime creates the mount point of a volume that is mounted below
// another one. If an earlier step then removes or renames the directory, it stays mounted, empty or outdated. If an earlier step removes the
// mount point, the mount goes, too (detach_mounts in the kernel's fs/namespace.c). The step would find other files than its author expects,
// and might succeed.

// mountRoots are the directories behind the step's mounts, by mountPath. Unknown directories are left out: some sandboxes show less.
type mountRoots map[string]mountRoot

// mountRoot is a directory behind a mount.
type mountRoot struct {
	path   string // in its file system, as in /proc/self/mountinfo
	linked bool   // has a link count, which some FUSE file systems do not report
}

// noteMounts returns the directories behind AgentFlags.Mounts when the container starts.
func noteMounts(mounts []string) mountRoots {
	roots := mountRoots{}
	for _, mount := range mounts {
		path, _, _ := strings.Cut(mount, ":")
		if root, state := findMount(path); state == mounted {
			roots[path] = root
		}
	}
	return roots
}

// lost returns a sentence about the first mount that lost its directory before the step was released, or "".
func (r mountRoots) lost(mounts []string) string {
	for _, mount := range mounts {
		path, subPath, _ := strings.Cut(mount, ":")
		root, state := findMount(path)
		before, known := r[path]
		switch {
		case state == unmounted:
			return "nothing is mounted at " + strconv.Quote(path) + " any more, because an earlier step removed or renamed the directory there: " +
				"choose a mountPath outside the other volumes"
		case state == removed || state == mounted && (known && root != before || root.isElsewhere(subPath)):
			return "an earlier step removed or renamed the directory that is mounted at " + strconv.Quote(path) +
				": mount the whole volume instead of a subPath, and use a path below it"
		}
	}
	return ""
}

// isElsewhere reports whether the directory is no longer at the subPath of its emptyDir, because an earlier step renamed it before noteMounts.
// It returns false for a directory that is not in the kubelet's directory for emptyDirs.
func (r mountRoot) isElsewhere(subPath string) bool {
	_, inVolumes, found := strings.Cut(r.path, "/kubernetes.io~empty-dir/")
	_, path, below := strings.Cut(inVolumes, "/")
	return subPath != "" && found && below && path != mangle(filepath.Clean(subPath))
}

type mountState int

const (
	unknown mountState = iota
	mounted
	unmounted
	removed
)

// findMount returns the directory behind the mount at path.
func findMount(path string) (root mountRoot, state mountState) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	var info unix.Stat_t
	if err == nil {
		defer unix.Close(fd)
		err = unix.Fstat(fd, &info)
	}
	switch err {
	case nil:
		root.linked = info.Nlink > 0
	case unix.ENOENT, unix.ENOTDIR:
		return root, unmounted
	case unix.ESTALE: // NFS
		return root, removed
	default:
		return root, unknown
	}
	var point string
	root.path, point = mountOf(fd)
	const deleted = "//deleted" // dentry_path in the kernel's fs/d_path.c
	if strings.HasSuffix(root.path, deleted) {
		return root, removed
	}
	resolved := make([]byte, unix.PathMax)
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), resolved)
	switch {
	case root.path == "" || err != nil:
		return root, unknown
	case mangle(string(resolved[:n])) != point:
		return root, unmounted
	}
	return root, mounted
}

// mangle escapes a path as in mountinfo (seq_path_root in the kernel's fs/seq_file.c). A strings.Replacer would make the agent larger.
func mangle(path string) string {
	for _, escape := range [][2]string{{`\`, `\134`}, {" ", `\040`}, {"\t", `\011`}, {"\n", `\012`}} { // the backslash first
		path = strings.ReplaceAll(path, escape[0], escape[1])
	}
	return path
}

// mountOf returns the root and the mount point of an open file's mount, as in mountinfo. Both are empty if they are unknown.
func mountOf(fd int) (root, point string) {
	const limit = 1 << 20 // some thousands of mounts
	about, _ := read("/proc/self/fdinfo/"+strconv.Itoa(fd), 0, limit)
	_, about, found := bytes.Cut(about, []byte("mnt_id:"))
	id := bytes.Fields(about)
	if !found || len(id) == 0 {
		return "", ""
	}
	table, _ := read("/proc/self/mountinfo", 0, limit)
	for line := range bytes.Lines(table) {
		// ID, parent ID, device, root, mount point: proc_pid_mountinfo(5).
		if fields := bytes.Fields(line); len(fields) > 4 && bytes.Equal(fields[0], id[0]) {
			return string(fields[3]), string(fields[4])
		}
	}
	return "", ""
}
