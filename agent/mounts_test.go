//go:build linux

package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// A step does not run if an earlier step removed or replaced the directory behind one of its mounts: it would see an empty or outdated directory,
// and might succeed. Changes in the directory do not matter.
func TestLostMounts(t *testing.T) {
	const (
		replaced = `an earlier step removed or renamed the directory that is mounted at "MOUNT": mount the whole volume instead of a subPath, and use a path below it`
		gone     = `nothing is mounted at "MOUNT" any more, because an earlier step removed or renamed the directory there: choose a mountPath outside the other volumes`
	)
	tests := map[string]struct {
		// before changes the volume or the mount point after the mount and before the agent starts, after while the agent waits.
		before, after func(t *testing.T, dist, mount string)
		subPath       string // the mounted subPath; empty: it may be a link
		want          string // the message; empty: the step runs
	}{
		"nothing":            {},
		"content is written": {after: func(t *testing.T, dist, _ string) { writeFile(t, dist+"/app.js", "js") }},
		"content is replaced": {
			before: func(t *testing.T, dist, _ string) { writeFile(t, dist+"/old", "") },
			after: func(t *testing.T, dist, _ string) {
				must(t, os.Remove(dist+"/old"))
				writeFile(t, dist+"/app.js", "js")
			},
		},
		"the directory is removed": {after: func(t *testing.T, dist, _ string) { must(t, os.RemoveAll(dist)) }, want: replaced},
		"the directory is removed and created again": {
			after: func(t *testing.T, dist, _ string) {
				must(t, os.RemoveAll(dist))
				must(t, os.Mkdir(dist, 0o755))
			},
			want: replaced,
		},
		"the directory is removed before the agent starts": {before: func(t *testing.T, dist, _ string) { must(t, os.RemoveAll(dist)) }, want: replaced},
		"the directory is renamed": {
			after: func(t *testing.T, dist, _ string) {
				must(t, os.Rename(dist, dist+".old"))
				must(t, os.Mkdir(dist, 0o755))
			},
			want: replaced,
		},
		"the directory is renamed before the agent starts": {
			before:  func(t *testing.T, dist, _ string) { must(t, os.Rename(dist, dist+".old")) },
			subPath: "DIRECTORY/dist", want: replaced,
		},
		"the directory is at its subPath": {subPath: "./DIRECTORY//dist/"},
		"a parent is renamed": {
			after: func(t *testing.T, dist, _ string) { must(t, os.Rename(filepath.Dir(dist), filepath.Dir(dist)+".old")) },
			want:  replaced,
		},
		"the mount point is removed": {after: func(t *testing.T, _, mount string) { must(t, os.Remove(mount)) }, want: gone},
		"the mount point is removed and created again": {
			after: func(t *testing.T, _, mount string) {
				must(t, os.Remove(mount))
				must(t, os.Mkdir(mount, 0o755))
			},
			want: gone,
		},
		"the mount point is removed before the agent starts": {before: func(t *testing.T, _, mount string) { must(t, os.Remove(mount)) }, want: gone},
	}
	for name, tc := range tests {
		for _, directory := range []string{"plain", `a b\c`} {
			t.Run(name+" "+directory, func(t *testing.T) {
				t.Parallel()
				root := t.TempDir()
				dist, mount, ready := filepath.Join(root, "kubernetes.io~empty-dir", "s", directory, "dist"), filepath.Join(root, "at "+directory), filepath.Join(root, "ready")
				must(t, os.MkdirAll(dist, 0o755))
				must(t, os.Mkdir(mount, 0o755))
				info := newPodinfo(t)
				info.write(order("1"))
				flags := info.step(2)
				flags.Mounts, flags.Command = []string{mount}, []string{"echo", "ran"}
				if tc.subPath != "" {
					flags.Mounts[0] += ":" + strings.ReplaceAll(tc.subPath, "DIRECTORY", directory)
				}
				// The mount is in a mount namespace of its own.
				const setUp = `mount --make-rprivate / && mount --bind "$1" "$2" && mkdir "$3" && while [ -e "$3" ]; do sleep 0.01; done; shift 3; exec "$@"`
				args := append(shell(setUp), "sh", dist, mount, ready, filepath.Join(programs, agentName))
				process := container{program: lookUp(t, "sh"), clone: unix.CLONE_NEWNS, args: append(args[1:], flags.Args()...)}.start(t)
				eventually(t, "the mount", func() bool { _, err := os.Stat(ready); return err == nil })
				if tc.before != nil {
					tc.before(t, dist, mount)
				}
				must(t, os.Remove(ready))
				info.awaitRejection()
				if tc.after != nil {
					tc.after(t, dist, mount)
				}
				info.write(order("2"))
				want := result{Stdout: "ran\n"}
				if tc.want != "" {
					message := strings.ReplaceAll(tc.want, `"MOUNT"`, strconv.Quote(mount))
					want = result{Code: contract.ExitNotExecutable, Stderr: "agent: " + message + "\n"}
				}
				if diff := cmp.Diff(want, process.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		}
	}
}

func lookUp(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	must(t, err)
	return path
}
