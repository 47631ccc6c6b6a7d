//go:build linux

package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/agent"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The tests run agents as processes, because signals, orphans and exit codes can only be seen from outside. The test binary acts as all of
// these programs, depending on its name. An environment variable is no alternative: the command inherits it, and the tests compare it.
const (
	agentName          = "test-agent"
	agentNoInotifyName = "test-agent-without-inotify"
	agentOwnDevName    = "test-agent-with-own-dev"
	agentHastyName     = "test-agent-without-patience"
	childName          = "test-child"
)

// programs is a directory with a link to the test binary for each of those names.
var programs string

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case agentName:
		os.Exit(actAsAgent())
	case agentNoInotifyName:
		os.Exit(actAsAgentWithoutInotify())
	case agentOwnDevName:
		os.Exit(actAsAgentWithOwnDev())
	case agentHastyName:
		os.Exit(actAsAgentWithoutPatience())
	case childName:
		os.Exit(actAsChild(os.Args[1:]))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "agent-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary, err := os.Executable()
	if err != nil {
		panic(err)
	}
	for _, name := range []string{agentName, agentNoInotifyName, agentOwnDevName, agentHastyName, childName} {
		if err := os.Symlink(binary, filepath.Join(dir, name)); err != nil {
			panic(err)
		}
	}
	programs = dir
	// With -race, every process sleeps for a second before it ends by default.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	return m.Run()
}

// actAsAgent does what cmd/agent does, and then checks that the agent leaves no processes behind. That can't be seen from outside, because
// the kernel kills them when process 1 ends.
func actAsAgent() int {
	return actAs(agent.Run)
}

func actAs(run func([]string, agent.Signals, func() time.Time, io.Writer) int) int {
	signals := agent.Notify()
	code := run(agent.TakeArgs()[1:], signals, time.Now, os.Stderr)
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		fmt.Fprintln(os.Stderr, "the agent has returned and has children left")
	}
	return code
}

// The two kinds of container: with a PID namespace of its own, and with a shared one (shareProcessNamespace, hostPID).
const (
	asProcess1    = "process 1"
	notAsProcess1 = "not process 1"
)

var placements = map[string]uintptr{asProcess1: unix.CLONE_NEWPID, notAsProcess1: 0}

// container starts a program like a container runtime.
type container struct {
	program string // a path, or one of the names above; default: agentName
	clone   uintptr
	args    []string
	edit    func(*exec.Cmd) // may be nil
}

// process is a running program.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr output
}

// result is how a process ended.
type result struct {
	Code           int
	Stdout, Stderr string
}

// patience limits every wait for something that must happen. Only a failing test waits that long.
const patience = time.Minute

func (c container) start(t *testing.T) *process {
	t.Helper()
	if c.program == "" {
		c.program = agentName
	}
	if !filepath.IsAbs(c.program) {
		c.program = filepath.Join(programs, c.program)
	}
	p := &process{t: t}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	p.cmd = exec.CommandContext(ctx, c.program, c.args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.WaitDelay = patience
	p.cmd.SysProcAttr = cloned(c.clone)
	if c.edit != nil {
		c.edit(p.cmd)
	}
	must(t, p.cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = p.cmd.Wait() // fails if the test has waited
	})
	return p
}

func (c container) run(t *testing.T) result {
	t.Helper()
	return c.start(t).wait()
}

// cloned gives a process new namespaces. That requires root, at least in a user namespace.
func cloned(flags uintptr) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: flags}
	if flags != 0 && os.Geteuid() != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
	}
	if attr.Cloneflags&unix.CLONE_NEWUSER != 0 {
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

// wait returns when the process has ended and no process holds its output.
func (p *process) wait() result {
	p.t.Helper()
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		p.t.Errorf("waiting for %q: %v", p.cmd.Args, err)
	}
	return result{Code: p.cmd.ProcessState.ExitCode(), Stdout: p.stdout.String(), Stderr: p.stderr.String()}
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("sending %v: %v", sig, err)
	}
}

func (p *process) awaitOutput(want string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("output %q", want), func() bool { return strings.Contains(p.stdout.String(), want) })
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	const interval = 5 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited %v for this: %s", patience, what)
		}
	}
}

// output is a buffer that can be read while a process writes to it.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}

// released returns the flags of a step that is released, with the empty termination log that a kubelet creates.
func released(t *testing.T, command ...string) contract.AgentFlags {
	t.Helper()
	dir := t.TempDir()
	return contract.AgentFlags{
		Wait:           writeFile(t, filepath.Join(dir, contract.OrderFile), "1"),
		WaitContent:    1,
		TerminationLog: writeFile(t, filepath.Join(dir, "termination-log"), ""),
		Command:        command,
	}
}

// shell returns a command that runs a script.
func shell(script string) []string {
	return []string{"sh", "-c", script}
}

// child returns a command that runs actAsChild.
func child(args ...string) []string {
	return append([]string{filepath.Join(programs, childName)}, args...)
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() {
		_ = r.Close() // fails if the test has closed it
		_ = w.Close()
	})
	return r, w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
