//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

var ran = result{Code: 0, Stdout: "ran\n"}

// The order releases a step at its number and at every larger one: updates coalesce, so the agent may never see its own number.
func TestGateOpens(t *testing.T) {
	tests := map[string]struct {
		order string
		step  int
	}{
		"at the order":               {order: "1", step: 1},
		"above it":                   {order: "4", step: 3},
		"compared as numbers":        {order: "10", step: 9},
		"with white space around it": {order: " 3\n", step: 3},
		"at the hundredth step":      {order: "100", step: 100},
		"an order far above it":      {order: "100", step: 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := newPodinfo(t)
			info.write(order(tc.order))
			got := container{args: info.step(tc.step).Args()}.run(t)
			if diff := cmp.Diff(ran, got); diff != "" {
				t.Errorf("step %d at order %q: -want +got:\n%s", tc.step, tc.order, diff)
			}
		})
	}
}

// Any other content keeps the step waiting, until it is released: the kubelet may be about to write a file that is missing or malformed.
func TestGateWaitsForTheOrder(t *testing.T) {
	tests := map[string]files{
		"an order below":                  order("8"),
		"an order below, with a space":    order("8 "),
		"no order file":                   {contract.HaltFile: ""},
		"an empty order":                  order(""),
		"an order that is no number":      order("nine"),
		"an order with text after it":     order("9th"),
		"two orders":                      order("9\n10"),
		"a fraction":                      order("9.5"),
		"a negative order":                order("-9"),
		"an order above the largest int":  order("99999999999999999999"),
		"no halt file":                    {contract.OrderFile: "8"},
		"a halt that is only white space": halted("8", " \n"),
	}
	for name, contents := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := newPodinfo(t)
			info.write(contents)
			p := container{args: late(info.step(9)).Args()}.start(t)
			info.awaitRejection()
			info.write(order("9"))
			if diff := cmp.Diff(result{Stdout: "9"}, p.wait()); diff != "" {
				t.Errorf("after the release: -want +got:\n%s", diff)
			}
		})
	}
}

// The agent follows the kubelet's updates of the volume, also if the first one comes after the agent. None of them releases the step early.
func TestGateFollowsTheKubelet(t *testing.T) {
	tests := map[string][]files{
		"one step at a time":          {order("1"), order("2"), order("3")},
		"updates that were coalesced": {order("1"), order("7")},
		"the first write is late":     {nil, order("3")},
		"files that appear later":     {{contract.HaltFile: ""}, order("2"), order("3")},
		"a file that goes away":       {order("2"), {contract.HaltFile: ""}, order("3")},
	}
	for name, writes := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := newPodinfo(t)
			var p *process
			for i, contents := range writes {
				if contents != nil {
					info.write(contents)
				}
				if i == 0 {
					p = container{args: late(info.step(3)).Args()}.start(t)
				}
				if contents != nil && i < len(writes)-1 {
					info.awaitRejection()
				}
			}
			if diff := cmp.Diff(result{Stdout: writes[len(writes)-1][contract.OrderFile]}, p.wait()); diff != "" {
				t.Errorf("after the last write: -want +got:\n%s", diff)
			}
		})
	}
}

// The watch reports each of many updates: an agent that only rechecks periodically would need minutes.
func TestGateWakesForEachUpdate(t *testing.T) {
	t.Parallel()
	const updates = 30
	info := newPodinfo(t)
	info.write(order("0"))
	p := container{args: late(info.step(updates)).Args()}.start(t)
	info.awaitRejection()
	for k := 1; k < updates; k++ {
		info.write(order(strconv.Itoa(k)))
		info.awaitOpens(1, time.Now()) // without a nudge
	}
	info.write(order(strconv.Itoa(updates)))
	if diff := cmp.Diff(result{Stdout: strconv.Itoa(updates)}, p.wait()); diff != "" {
		t.Errorf("after the last update: -want +got:\n%s", diff)
	}
}

// After a halt the step never runs, even if the order arrives with it. That is not a failure: the exit code is 0, and the record has the reason.
func TestHaltSkipsTheStep(t *testing.T) {
	const reason = "step \"a\" failed with exit code 3"
	tests := map[string][]files{
		"before the agent starts":         {halted("1", reason)},
		"while the step waits":            {order("1"), order("2"), halted("2", reason)},
		"with the release":                {order("2"), halted("3", reason)},
		"with the release, at the start":  {halted("3", reason)},
		"with white space around it":      {order("2"), halted("2", "\n "+reason+"\n")},
		"without an order file":           {{contract.HaltFile: reason}},
		"with an order that is no number": {halted("three", reason)},
	}
	for name, writes := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := newPodinfo(t)
			info.write(writes[0])
			flags := info.step(3)
			p := container{args: flags.Args()}.start(t)
			for _, contents := range writes[1:] {
				info.awaitRejection()
				info.write(contents)
			}
			if diff := cmp.Diff(result{}, p.wait()); diff != "" {
				t.Errorf("after the halt: -want +got:\n%s", diff)
			}
			want := contract.Record{Reason: contract.ReasonSkipped, Message: reason}
			if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}

// Pods of the first release have no flag for the halt: their agents ignore a halt file beside the order.
func TestGateWithoutHaltFlag(t *testing.T) {
	t.Parallel()
	info := newPodinfo(t)
	info.write(halted("1", "a reason"))
	flags := info.step(1)
	flags.Halt = ""
	if diff := cmp.Diff(ran, container{args: flags.Args()}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The agent can't watch a directory that is missing or replaced, and must notice the order anyway. The halt file is elsewhere, so that the test
// sees the agent's reads.
func TestGateSurvivesItsDirectory(t *testing.T) {
	tests := map[string]bool{"missing at first": false, "replaced": true}
	for name, thereAtFirst := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			halt, before, after := newPodinfo(t), newPodinfo(t), newPodinfo(t)
			halt.write(order("0"))
			before.write(order("0"))
			after.write(order("1"))

			dir := filepath.Join(t.TempDir(), "podinfo")
			flags := halt.step(1)
			flags.Wait = filepath.Join(dir, contract.OrderFile)
			if thereAtFirst {
				must(t, os.Rename(before.dir, dir))
			}
			p := container{args: flags.Args()}.start(t)
			halt.awaitRejection()
			if thereAtFirst {
				must(t, os.Rename(dir, before.dir))
				halt.write(order("0"))
				halt.awaitRejection()
			}
			must(t, os.Rename(after.dir, dir))
			if diff := cmp.Diff(ran, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A node has 128 inotify instances per user, which other Pods may use up. The agent then polls, but does not spin.
func TestGateWithoutInotify(t *testing.T) {
	start := func(t *testing.T, info *podinfo) (*process, contract.AgentFlags) {
		flags := late(info.step(3))
		c := container{program: agentNoInotifyName, clone: unix.CLONE_NEWUSER, args: flags.Args()}
		return c.start(t), flags
	}

	t.Run("opens", func(t *testing.T) {
		t.Parallel()
		info := newPodinfo(t)
		info.write(order("1"))
		p, _ := start(t, info)
		info.awaitRejection()
		info.write(order("3"))
		if diff := cmp.Diff(result{Stdout: "3"}, p.wait()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
	t.Run("halts", func(t *testing.T) {
		t.Parallel()
		info := newPodinfo(t)
		info.write(order("1"))
		p, flags := start(t, info)
		info.awaitRejection()
		info.write(halted("3", "a reason"))
		if diff := cmp.Diff(result{}, p.wait()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if diff := cmp.Diff(contract.ReasonSkipped, readRecord(t, flags).Reason); diff != "" {
			t.Errorf("reason: -want +got:\n%s", diff)
		}
	})
	t.Run("does not spin", func(t *testing.T) {
		t.Parallel()
		// A timer may be late, but never early, so this can't fail on a slow machine.
		const reads, leastPause = 8, 100 * time.Millisecond
		info := newPodinfo(t)
		info.write(order("1"))
		started := time.Now()
		start(t, info)
		if took := info.awaitOpens(2*reads, started); took < (reads-1)*leastPause {
			t.Errorf("%d reads took %v, want at least %v between two", reads, took, leastPause)
		}
	})
}

func actAsAgentWithoutInotify() int {
	// The limit applies only to this process's user namespace.
	if err := os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := unix.InotifyInit1(unix.IN_CLOEXEC); err != unix.EMFILE {
		fmt.Fprintf(os.Stderr, "inotify with the limit 0: got error %v, want %v\n", err, unix.EMFILE)
		return 1
	}
	return actAsAgent()
}

// Some sandboxes accept a watch and never report a change. A link to a file in another directory, which has no watch, has the same effect. The
// agent rechecks, but seldom, because a node may have 100 of them.
func TestGateRechecksIfWatchesAreSilent(t *testing.T) {
	t.Parallel()
	const leastPause = 3 * time.Second
	info := newPodinfo(t)
	info.write(order("1"))
	flags := info.step(3)
	dir := t.TempDir()
	for _, path := range []*string{&flags.Wait, &flags.Halt} {
		link := filepath.Join(dir, filepath.Base(*path))
		must(t, os.Symlink(*path, link))
		*path = link
	}

	started := time.Now()
	p := container{args: late(flags).Args()}.start(t)
	info.awaitOpens(2, started)
	info.write(order("3"))
	if diff := cmp.Diff(result{Stdout: "3"}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if took := time.Since(started); took < leastPause {
		t.Errorf("the second read came after %v, want at least %v", took, leastPause)
	}
}
