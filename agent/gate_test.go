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

// The gate opens at its own number and at every larger one, since updates coalesce: the agent may
// never see its own.
func TestGateOpens(t *testing.T) {
	tests := map[string]struct {
		order string
		step  int
	}{
		"at the order":                {order: "1", step: 1},
		"above it":                    {order: "4", step: 3},
		"by number and not by text":   {order: "10", step: 9},
		"with white space around it":  {order: " 3\n", step: 3},
		"at the hundredth step":       {order: "100", step: 100},
		"above an order far below it": {order: "100", step: 1},
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

// All else holds the step back, and none of it for good: what is missing or malformed may be about to
// be written.
func TestGateHoldsBackUntilReleased(t *testing.T) {
	tests := map[string]files{
		"an order below":                  order("8"),
		"an order below, larger as text":  order("8 "),
		"no order file":                   {contract.HaltFile: ""},
		"an empty order":                  order(""),
		"an order that is no number":      order("nine"),
		"an order with text behind":       order("9th"),
		"two orders":                      order("9\n10"),
		"a fraction":                      order("9.5"),
		"a negative order":                order("-9"),
		"an order too large to be true":   order("99999999999999999999"),
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

// The agent follows the kubelet's swaps, also the first one, which may come after the agent; and none
// of them opens the gate before the order is there.
func TestGateFollowsTheKubelet(t *testing.T) {
	tests := map[string][]files{
		"one step at a time":          {order("1"), order("2"), order("3")},
		"updates that were coalesced": {order("1"), order("7")},
		"the first write is late":     {nil, order("3")},
		"files that come later":       {{contract.HaltFile: ""}, order("2"), order("3")},
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

// Many swaps in a row: an agent that missed them, and only looked now and then, would need minutes.
func TestGateIsWokenByEverySwap(t *testing.T) {
	t.Parallel()
	const swaps = 30
	info := newPodinfo(t)
	info.write(order("0"))
	p := container{args: late(info.step(swaps)).Args()}.start(t)
	info.awaitRejection()
	for k := 1; k < swaps; k++ {
		info.write(order(strconv.Itoa(k)))
		info.awaitOpens(1, time.Now()) // of the files just written, with no nudge
	}
	info.write(order(strconv.Itoa(swaps)))
	if diff := cmp.Diff(result{Stdout: strconv.Itoa(swaps)}, p.wait()); diff != "" {
		t.Errorf("after the last swap: -want +got:\n%s", diff)
	}
}

// Once there is a halt the step never runs, also when its release arrives with it. It is no failure:
// the exit code is 0 and the record says why.
func TestGateHalts(t *testing.T) {
	const reason = "step \"a\" failed with exit code 3"
	tests := map[string][]files{
		"before the agent starts":            {halted("1", reason)},
		"while the step waits":               {order("1"), order("2"), halted("2", reason)},
		"together with the release":          {order("2"), halted("3", reason)},
		"together with the release, at once": {halted("3", reason)},
		"with white space around it":         {order("2"), halted("2", "\n "+reason+"\n")},
		"without an order file":              {{contract.HaltFile: reason}},
		"with an order that is no number":    {halted("three", reason)},
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

// Pods of the first release have no halt file among their flags: what lies beside the order is then
// none of the agent's business.
func TestGateWithoutHalt(t *testing.T) {
	t.Parallel()
	info := newPodinfo(t)
	info.write(halted("1", "a reason"))
	flags := info.step(1)
	flags.Halt = ""
	if diff := cmp.Diff(ran, container{args: flags.Args()}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A directory that is not there yet, or is replaced as a whole, can't be watched: the agent must
// notice all the same. The halt file lies elsewhere, to see that the agent looks.
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

// A node has 128 inotify instances for each user, and other Pods may have them all. The agent then
// polls: it opens and halts as ever, and does not spin.
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
		// A timer may be late and never early, so this can't fail on a slow machine.
		const looks, leastPause = 8, 100 * time.Millisecond
		info := newPodinfo(t)
		info.write(order("1"))
		started := time.Now()
		start(t, info)
		if took := info.awaitOpens(2*looks, started); took < (looks-1)*leastPause {
			t.Errorf("%d looks took %v, want at least %v between two", looks, took, leastPause)
		}
	})
}

func actAsAgentWithoutInotify() int {
	// The limit is that of this process's own user namespace: nobody else feels it.
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

// Some sandboxes accept a watch and never report a change. Here the file behind the link lies in a
// directory that nobody watches, which comes to the same. The gate opens, if late; and in the
// meantime it does not poll, which 100 containers on a node would feel.
func TestGateLooksAgainWhereWatchesAreSilent(t *testing.T) {
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
		t.Errorf("the second look came within %v, want at least %v", took, leastPause)
	}
}
