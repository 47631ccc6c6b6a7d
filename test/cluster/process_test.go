package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParseStartTime proves that blanks, parentheses or a line feed in the name shift no field, and that an ended process has no start
// time.
func TestParseStartTime(t *testing.T) {
	// Fields 4 to 21 of proc_pid_stat(5), then the start time and three more.
	const rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21 22\n"
	for name, test := range map[string]struct{ stat, want string }{
		"plain":                   {"42 (etcd) S" + rest, "4711"},
		"name with a blank":       {"42 (tmux: server) R" + rest, "4711"},
		"name like a state":       {"42 (a) Z 1 2) S" + rest, "4711"},
		"name of parentheses":     {"42 ())((() S" + rest, "4711"},
		"name with a line feed":   {"42 (a\nb) D" + rest, "4711"},
		"ended and not reaped":    {"42 (etcd) Z" + rest, ""},
		"dead":                    {"42 (etcd) X" + rest, ""},
		"name like a dead one's":  {"42 (x) S 1) Z" + rest, ""},
		"cut off before the time": {"42 (etcd) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18", ""},
		"no name":                 {"42", ""},
		"empty":                   {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parseStartTime(test.stat)); diff != "" {
				t.Errorf("start time (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAlive proves that a process is identified by its id and its start time, and that a process which ended before its start time was read
// is dead, although its start time is empty later, too.
func TestAlive(t *testing.T) {
	self := os.Getpid()
	const none = 1 << 30 // above the highest pid_max
	started := startTime(self)
	if started == "" {
		t.Fatal("this process has no start time")
	}
	for name, test := range map[string]struct {
		process process
		want    bool
	}{
		"running":                         {process{self, started}, true},
		"its id was given to another one": {process{self, started + "0"}, false},
		"gone":                            {process{none, started}, false},
		"gone at once":                    {process{none, ""}, false},
		"never started":                   {process{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.process.alive(); got != test.want {
				t.Errorf("alive: got %t, want %t", got, test.want)
			}
		})
	}
}

// TestStartTimeOfKernel proves that the kernel's own text is parsed: the time equals that in /proc/self/stat.
func TestStartTimeOfKernel(t *testing.T) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	// The name of a test binary has neither blanks nor parentheses.
	want := strings.Fields(string(stat))[21]
	if diff := cmp.Diff(want, startTime(os.Getpid())); diff != "" {
		t.Errorf("start time (-want +got):\n%s", diff)
	}
}

// TestCgroupProcesses proves that the processes of all the cluster's cgroups are found, at every depth and in each hierarchy, and those of
// no other group: neither of a sibling, nor of a group of the same name elsewhere.
func TestCgroupProcesses(t *testing.T) {
	root := t.TempDir()
	for group, procs := range map[string]string{
		"memory/taskflow-test":               "",
		"memory/taskflow-test/kubepods":      "11\n",
		"memory/taskflow-test/kubepods/pod1": "12\n13\n0\n",
		"pids/taskflow-test/kubepods/pod1":   "12\n14\n",
		"pids":                               "1\n",
		"pids/taskflow-test-2":               "2\n",
		"pids/docker/taskflow-test":          "3\n",
	} {
		dir := filepath.Join(root, group)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(procs), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "pids/taskflow-test/gone"), 0o755); err != nil { // like one that is being removed
		t.Fatal(err)
	}
	got, err := cgroupProcesses([]string{filepath.Join(root, "memory"), filepath.Join(root, "pids"), filepath.Join(root, "none")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{11, 12, 13, 12, 14}, got); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
}
