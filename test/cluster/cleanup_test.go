package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMountsBelow proves which mounts belong to the cluster, from lines as the kernel writes them.
func TestMountsBelow(t *testing.T) {
	for name, test := range map[string]struct {
		mountPoints []string
		folders     []string
		want        []string
	}{
		"the folder itself and what is in it": {
			mountPoints: []string{"/", "/proc", "/c/.cluster/kubelet", "/c/.cluster"},
			folders:     []string{"/c/.cluster"},
			want:        []string{"/c/.cluster", "/c/.cluster/kubelet"},
		},
		"last mounted first, over all folders": {
			mountPoints: []string{"/run/x/1", "/c/a", "/run/x/2", "/c/a/b", "/run/x/2"},
			folders:     []string{"/c", "/run/x"},
			want:        []string{"/run/x/2", "/c/a/b", "/run/x/2", "/c/a", "/run/x/1"},
		},
		"a prefix is not a parent": {
			mountPoints: []string{"/c/.cluster2", "/c/.cluster-old/kubelet", "/c", "/x/c/.cluster"},
			folders:     []string{"/c/.cluster"},
		},
		"once, where the folders overlap": {
			mountPoints: []string{"/c/a/b"},
			folders:     []string{"/c", "/c/a", "/c/a/b"},
			want:        []string{"/c/a/b"},
		},
		"blanks and backslashes": {
			mountPoints: []string{`/c\040d/a\011b`, `/c\040d/a\012b`, `/c\040d/a\134b`, `/c\040d/a\134040b`, `/c/x`},
			folders:     []string{"/c d"},
			want:        []string{`/c d/a\040b`, `/c d/a\b`, "/c d/a\nb", "/c d/a\tb"},
		},
		"no folder": {mountPoints: []string{"/", "/c"}},
	} {
		t.Run(name, func(t *testing.T) {
			var mountInfo strings.Builder
			for _, point := range test.mountPoints {
				mountInfo.WriteString("65 44 0:59 / " + point + " rw,relatime shared:6 - tmpfs none rw,size=1024k\n")
			}
			if diff := cmp.Diff(test.want, mountsBelow(mountInfo.String(), test.folders)); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMountsBelowFields proves that only the mount point counts and not the source of the mount, whose text ends in "//deleted" if it is
// gone. A line without a mount point is ignored.
func TestMountsBelowFields(t *testing.T) {
	mountInfo := `36 27 254:0 /c/.cluster/volume /elsewhere rw - ext4 /dev/vda rw
37 27 254:0 /elsewhere//deleted /c/.cluster/volume rw shared:1 master:2 - ext4 /dev/vda rw
38 27 254:0 /

39 27 0:5 net:[4026532177] /c/.cluster/netns rw - nsfs none rw`
	want := []string{"/c/.cluster/netns", "/c/.cluster/volume"}
	if diff := cmp.Diff(want, mountsBelow(mountInfo, []string{"/c/.cluster"})); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

// TestSettings proves that the kernel's settings get back their values from before the cluster. A setting that this kernel doesn't have is
// ignored, and an unchanged one isn't written.
func TestSettings(t *testing.T) {
	dir := t.TempDir()
	write := func(file, value string) {
		t.Helper()
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("vm/overcommit_memory", "0")
	write("kernel/panic", "-1")
	write("kernel/other", "5")

	before, err := readSettings(dir, []string{"vm/overcommit_memory", "kernel/panic", "kernel/no_such"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"vm/overcommit_memory": "0", "kernel/panic": "-1"}, before); diff != "" {
		t.Errorf("settings before (-want +got):\n%s", diff)
	}

	write("vm/overcommit_memory", "1")
	write("kernel/other", "6")
	if err := writeSettings(dir, before); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"vm/overcommit_memory": "0",    // as the kernel writes it: without a line feed
		"kernel/panic":         "-1\n", // unchanged
		"kernel/other":         "6\n",
	}
	for file, value := range want {
		got, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(value, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

// TestSettingsOfOldRecord proves that a record without settings changes none.
func TestSettingsOfOldRecord(t *testing.T) {
	if err := writeSettings(filepath.Join(t.TempDir(), "none"), nil); err != nil {
		t.Error(err)
	}
}

// TestDelegateControllers proves that the root and the cluster's group delegate the controllers that the kubelet needs and that each has,
// in one request, and that no process moves if the kernel accepts it. Files can't show that the kernel refuses it.
func TestDelegateControllers(t *testing.T) {
	root := t.TempDir()
	writeGroup(t, root, "cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n")
	writeGroup(t, root, "cgroup.procs", "1\n")
	writeGroup(t, filepath.Join(root, "ours"), "cgroup.controllers", "cpu memory pids\n")
	if err := delegateControllers(root, "ours"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"cgroup.controllers":          "cpuset cpu io memory hugetlb pids rdma misc\n",
		"cgroup.procs":                "1\n",
		"cgroup.subtree_control":      "+cpuset +cpu +memory +hugetlb +pids",
		"ours/cgroup.controllers":     "cpu memory pids\n",
		"ours/cgroup.subtree_control": "+cpu +memory +pids",
	}
	got := map[string]string{}
	for _, file := range filesBelow(t, root) {
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		got[file] = string(content)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestMoveProcesses proves that all processes of a group are written to the other one, each with a line feed of its own.
func TestMoveProcesses(t *testing.T) {
	root := t.TempDir()
	leaf := filepath.Join(root, "init")
	writeGroup(t, root, "cgroup.procs", "1\n12\n345\n")
	writeGroup(t, leaf, "cgroup.procs", "") // the kernel creates it with the group
	if err := moveProcesses(root, leaf); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(leaf, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("1\n12\n345\n", string(got)); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
}

func writeGroup(t *testing.T, dir, file, content string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
