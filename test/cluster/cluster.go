package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// runDir has what every clone must find (the record of the cluster, one per machine) and what needs a short path: the path of a Unix socket
// has at most 107 bytes.
const runDir = "/run/taskflow-test"

// lockFile prevents two commands from changing the cluster at the same time. It outlives runDir.
const lockFile = "/run/taskflow-test.lock"

// cluster is the one cluster of this machine, as the clone at root sees it.
type cluster struct {
	root  string // the clone of the repository
	state string // the folder for all its files, which git ignores
	self  string // this program, which is the registry too
}

func newCluster(root, self string) *cluster {
	return &cluster{root: root, state: filepath.Join(root, ".cluster"), self: self}
}

func (c *cluster) kubeconfig() string { return filepath.Join(c.state, "config", "admin.kubeconfig") }

func (c *cluster) logFile(component string) string {
	return filepath.Join(c.state, "logs", component+".log")
}

// begin makes sure that the caller may change the cluster and that no other command does so meanwhile. It returns the record and a function
// that releases the lock.
func (c *cluster) begin(ctx context.Context) (record, func(), error) {
	if err := checkRoot(); err != nil {
		return record{}, nil, err
	}
	lock, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return record{}, nil, err
	}
	unlock := func() { _ = lock.Close() }
	tryLock := func() bool {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		return !errors.Is(err, syscall.EWOULDBLOCK)
	}
	if !tryLock() {
		fmt.Fprintln(os.Stderr, "waiting for another cluster command to end ...")
		poll(ctx, time.Hour, tryLock)
	}
	if err != nil {
		unlock()
		return record{}, nil, fmt.Errorf("locking %s: %w", lockFile, err)
	}
	r, err := readRecord(recordFile)
	if err == nil && r.State != "" && r.State != c.state && len(r.aliveComponents()) > 0 {
		// If a clone was removed while its cluster ran, it can't end the cluster. Mounts in its state folder may still exist.
		if clone := filepath.Dir(r.State); isRepository(clone) {
			err = fmt.Errorf("a cluster of another clone runs on this machine: end it with `make down` in %s", clone)
		}
	}
	if err != nil {
		unlock()
		return record{}, nil, err
	}
	return r, unlock, nil
}

func (c *cluster) up(ctx context.Context) error {
	began := time.Now()
	if err := checkRoot(); err != nil { // fails before a build of several minutes
		return err
	}
	if err := c.checkPath(); err != nil {
		return err
	}
	if err := c.setPath(); err != nil { // otherwise a package looks missing if its program isn't on the user's PATH
		return err
	}
	if err := installPackages(ctx); err != nil {
		return err
	}
	if err := checkNetwork(ctx); err != nil {
		return err
	}
	busybox, err := staticBusybox(ctx)
	if err != nil {
		return err
	}
	var dirs [3]string
	for i, b := range []build{kubernetesBuild, etcdBuild, containerdBuild} {
		dir, err := c.binaries(ctx, b)
		if err != nil {
			return err
		}
		dirs[i] = dir
	}
	if err := c.setPath(dirs[:]...); err != nil {
		return err
	}
	components := c.components(dirs[0], dirs[1], dirs[2])

	r, unlock, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if !c.repairable(r) {
		if r, err = c.prepare(ctx, r); err != nil {
			return err
		}
	}

	for _, component := range components {
		if p, ran := r.Processes[component.name]; ran && !p.alive() {
			fmt.Fprintf(os.Stderr, "%s has died; the end of its log:\n%s", component.name, c.tail(component.name))
			delete(r.Processes, component.name) // otherwise await would find it dead before its turn
		}
	}
	started := false
	for _, component := range components {
		if r.Processes[component.name].alive() {
			continue
		}
		started = true
		if r.Processes[component.name], err = start(component.command, c.logFile(component.name)); err != nil {
			return fmt.Errorf("starting %s: %w", component.name, err)
		}
		if err := r.write(recordFile); err != nil {
			return err
		}
		if component.ready != nil {
			if err := c.await(ctx, r, component.name+" is ready", component.ready); err != nil {
				return err
			}
		}
	}
	// The registry is asked, because an earlier up may have been killed before this point, or the registry may have died.
	if !imagesPushed(ctx) {
		if err := c.pushImages(ctx, busybox); err != nil {
			return err
		}
	}
	if err := c.await(ctx, r, "the node is ready", func(ctx context.Context) bool { return c.nodeReady(ctx, dirs[0]) }); err != nil {
		return err
	}
	if started {
		fmt.Fprintf(os.Stderr, "the cluster is up after %s\n", time.Since(began).Round(100*time.Millisecond))
	} else {
		fmt.Fprintln(os.Stderr, "the cluster is up already")
	}
	return nil
}

// repairable reports whether up can repair the running cluster by starting its dead components. It can't without the cluster's files, which
// `git clean -fdx` removes.
func (c *cluster) repairable(r record) bool {
	_, err := os.Stat(c.kubeconfig())
	return err == nil && r.State == c.state && len(r.aliveComponents()) > 0
}

// prepare removes the remains of an earlier cluster and creates what the components need.
func (c *cluster) prepare(ctx context.Context, old record) (record, error) {
	if old.State != "" {
		fmt.Fprintf(os.Stderr, "removing what the earlier cluster in %s has left\n", old.State)
		if err := cleanUp(ctx, old); err != nil {
			return record{}, fmt.Errorf("removing what an earlier cluster has left: %w", err)
		}
	}
	if err := cleanUp(ctx, record{State: c.state}); err != nil {
		return record{}, fmt.Errorf("removing what an earlier cluster has left: %w", err)
	}

	r := record{State: c.state, Processes: map[string]process{}}
	var err error
	if r.KernelSettings, err = readSettings("/proc/sys", kernelSettings); err != nil {
		return record{}, err
	}
	for _, dir := range fixedFolders {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			r.MadeFolders = append(r.MadeFolders, dir)
		}
	}
	for _, dir := range []string{"logs", "etcd", "registry", "kubelet"} {
		if err := os.MkdirAll(filepath.Join(c.state, dir), 0o700); err != nil {
			return record{}, err
		}
	}
	if err := r.write(recordFile); err != nil { // from here on there is something to remove
		return record{}, err
	}
	if err := makePKI(filepath.Join(c.state, "pki")); err != nil {
		return record{}, err
	}
	files := settings{State: c.state, Run: runDir, RestrictOOMScore: !mayLowerOOMScore()}
	if err := writeFiles(filepath.Join(c.state, "config"), files); err != nil {
		return record{}, err
	}
	if err := makeCgroups(); err != nil {
		return record{}, err
	}
	return r, makeNetwork(ctx)
}

func checkRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can run containers and make network namespaces: run it as root")
	}
	return nil
}

// checkPath returns an error if the path of a kubelet's socket would be too long: the kubelet would exit at once.
func (c *cluster) checkPath() error {
	const most = 107 // bytes, unix(7)
	socket := filepath.Join(c.state, "kubelet", "pod-resources", "kubelet.sock")
	if len(socket) > most {
		return fmt.Errorf("the path of this clone is %d bytes too long: the kubelet's socket would be %s, of %d at most", len(socket)-most, socket, most)
	}
	return nil
}

// mayLowerOOMScore reports whether this process has CAP_SYS_RESOURCE, which lowering an oom_score_adj requires (capabilities(7)). Without
// it, containerd must not try.
func mayLowerOOMScore() bool {
	const capSysResource = 24
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(status), "CapEff:")
	var effective uint64
	_, err = fmt.Sscanf(after, "%x", &effective)
	return err == nil && effective&(1<<capSysResource) != 0
}

// await waits until a condition holds. It fails after two minutes, and at once if a component dies.
func (c *cluster) await(ctx context.Context, r record, what string, holds func(context.Context) bool) error {
	const limit = 2 * time.Minute
	var dead string
	held := poll(ctx, limit, func() bool {
		if holds(ctx) {
			return true
		}
		for name, p := range r.Processes {
			if !p.alive() {
				dead = name
			}
		}
		return dead != ""
	})
	switch {
	case dead != "":
		return fmt.Errorf("%s has died while the cluster was starting; the end of its log:\n%s", dead, c.tail(dead))
	case ctx.Err() != nil:
		return ctx.Err()
	case !held:
		return fmt.Errorf("waited %s until %s: see `make cluster-status` and the logs in %s", limit, what, filepath.Join(c.state, "logs"))
	}
	return nil
}

func (c *cluster) down(ctx context.Context) error {
	r, unlock, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// In an order that matters: nothing creates containers while they are removed, and the API server stops before etcd. cleanUp does the
	// rest.
	for _, name := range []string{"kubelet", "kube-controller-manager", "kube-scheduler", "kube-apiserver"} {
		if err := r.Processes[name].stop(5 * time.Second); err != nil { //nolint:contextcheck // down completes even if it is interrupted
			return err
		}
	}
	if r.State != "" {
		if err := cleanUp(ctx, r); err != nil {
			return err
		}
	}
	if err := cleanUp(ctx, record{State: c.state}); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "the cluster is gone")
	return nil
}

func (c *cluster) status(ctx context.Context) error {
	r, err := readRecord(recordFile)
	if err != nil {
		return err
	}
	if r.State != c.state {
		return errors.New("there is no cluster of this clone: start one with `make up`")
	}
	kubernetes, err := c.binaries(ctx, kubernetesBuild)
	if err != nil {
		return err
	}
	var dead []string
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, component := range c.components("", "", "") {
		p := r.Processes[component.name]
		state := "running"
		if !p.alive() {
			state = "dead"
			dead = append(dead, component.name)
		}
		fmt.Fprintf(table, "%s\t%s\tpid %d\n", component.name, state, p.PID)
	}
	ready := c.nodeReady(ctx, kubernetes)
	fmt.Fprintf(table, "node %s\t%s\n", nodeName, map[bool]string{true: "ready", false: "not ready"}[ready])
	if err := table.Flush(); err != nil {
		return err
	}
	for _, name := range dead {
		fmt.Printf("\nthe end of the log of %s:\n%s", name, c.tail(name))
	}
	if len(dead) > 0 || !ready {
		return errors.New("the cluster isn't healthy: `make up` starts again what has died")
	}
	return nil
}

func (c *cluster) printLog(component string) error {
	log, err := os.Open(c.logFile(component))
	if errors.Is(err, fs.ErrNotExist) {
		var names []string
		for _, known := range c.components("", "", "") {
			names = append(names, known.name)
		}
		return fmt.Errorf("%q has no log: the components are %s", component, strings.Join(names, ", "))
	}
	if err != nil {
		return err
	}
	defer log.Close()
	_, err = io.Copy(os.Stdout, log)
	return err
}

// tail returns the end of a component's log.
func (c *cluster) tail(component string) string {
	const lines = 15
	content, err := os.ReadFile(c.logFile(component))
	if err != nil {
		return err.Error() + "\n"
	}
	all := strings.SplitAfter(strings.TrimSuffix(string(content), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "") + "\n"
}
