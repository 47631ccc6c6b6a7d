package podspec

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// The kubelet and the container runtime settle part of a container when they start it, before the earlier steps have run: docs/start.md lists it.
// This file finds what an earlier step can change afterwards: working directories, which the agent enters at the step's turn, and mounted
// directories, which the agent checks at the step's turn.

// workDir returns the directory that the agent enters at the step's turn, or "" if the container can start in it. No other container sees a
// directory outside of the volumes, and the directory of a mount always exists.
func workDir(pod *corev1.Pod, container *corev1.Container) string {
	paths, dir := mountPaths(container), path.Clean(container.WorkingDir)
	i := innermostAbove(paths, dir)
	if !path.IsAbs(dir) || i < 0 || slices.Contains(paths, dir) || !isWritable(pod, container.VolumeMounts[i].Name) {
		return ""
	}
	return container.WorkingDir
}

// literal escapes a text for command or args, where the kubelet would expand $(VAR). In workingDir, mountPath and subPath it expands nothing.
func literal(text string) string { return strings.ReplaceAll(text, "$", "$$") }

// mountPaths returns where the runtime mounts the volumes of a container: it resolves relative paths against the root. All are clean.
func mountPaths(container *corev1.Container) []string {
	paths := make([]string, len(container.VolumeMounts))
	for i := range container.VolumeMounts {
		paths[i] = path.Clean("/" + container.VolumeMounts[i].MountPath)
	}
	return paths
}

// isBelow reports whether a clean path lies strictly below another one.
func isBelow(dir, above string) bool {
	rest, found := strings.CutPrefix(dir, strings.TrimSuffix(above, "/"))
	return found && rest != "" && rest[0] == '/' && dir != above
}

// isWritable reports whether steps can write to a volume of the user.
func isWritable(pod *corev1.Pod, name string) bool {
	i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	if i < 0 || strings.HasPrefix(name, contract.ReservedPrefix) {
		return false
	}
	v := &pod.Spec.Volumes[i]
	return v.ConfigMap == nil && v.Secret == nil && v.DownwardAPI == nil && v.Projected == nil && v.Image == nil
}

// enterWorkDir makes the agent enter the working directory of a step, also for its probes and hooks. The container itself starts in /, because the
// WORKDIR of its image may be in a volume, too.
func enterWorkDir(p *jsonpatch.Patch, i int, container *corev1.Container, dir string) {
	if dir == "" {
		return
	}
	spec := []string{"spec", "containers", strconv.Itoa(i)}
	if container.WorkingDir != "/" {
		p.Set("/", append(slices.Clip(spec), "workingDir")...)
	}
	enter := func(exec *corev1.ExecAction, dir string, at ...string) {
		if exec != nil && len(exec.Command) > 0 && !slices.Contains(exec.Command, contract.AgentPath) {
			command := append([]string{contract.AgentPath}, contract.EnterArgs(dir, exec.Command)...)
			p.Set(command, slices.Concat(spec, at, []string{"exec", "command"})...)
		}
	}
	enter(ptr.Deref(container.LivenessProbe, corev1.Probe{}).Exec, literal(dir), "livenessProbe")
	enter(ptr.Deref(container.ReadinessProbe, corev1.Probe{}).Exec, literal(dir), "readinessProbe")
	if hooks := container.Lifecycle; hooks != nil && hooks.PreStop != nil {
		enter(hooks.PreStop.Exec, dir, "lifecycle", "preStop") // the kubelet expands nothing in a hook
	}
}

// earlyMount is a directory that is mounted when the Pod starts and that an earlier step can replace afterwards. A step beside it counts as earlier:
// only its successors run later in any case.
type earlyMount struct {
	step  *corev1.Container
	mount *corev1.VolumeMount
	// above is the mount that this one lies below. It is nil if this mount has a subPath.
	above *corev1.VolumeMount
	// isInInit means that an init container mounts the volume, too, and may have created what is mounted.
	isInInit bool
}

// place is a directory in a volume: a clean path, or "" for its root. Variables of a subPathExpr are not expanded.
type place struct{ volume, dir string }

func (p place) below(rest string) place {
	return place{p.volume, strings.Trim(path.Clean("/"+p.dir+"/"+rest), "/")}
}

func placeOf(mount *corev1.VolumeMount) place {
	return place{volume: mount.Name}.below(mount.SubPath + mount.SubPathExpr)
}

// earlyMounts returns the early mounts of each step, in the order of the steps.
func earlyMounts(pod *corev1.Pod, steps []int, plan sequence.Plan) [][]earlyMount {
	inInit := map[string]bool{}
	for _, container := range pod.Spec.InitContainers {
		for _, mount := range container.VolumeMounts {
			inInit[mount.Name] = true
		}
	}
	seen := placesOf(pod, steps)
	seen.ancestry = ancestryOf(plan)
	found := make([][]earlyMount, len(steps))
	for n, i := range steps {
		container := &pod.Spec.Containers[i]
		paths := mountPaths(container)
		for j := range container.VolumeMounts {
			mount := &container.VolumeMounts[j]
			if strings.HasPrefix(mount.Name, contract.ReservedPrefix) {
				continue
			}
			early := earlyMount{step: container, mount: mount, isInInit: inInit[mount.Name]}
			if above, point := nested(pod, container, paths, j); above != nil && seen.above(point, n) > seen.earlier(seen.points[point], n) {
				early.above = above
				found[n] = append(found[n], early)
				continue
			}
			if at := placeOf(mount); at.dir != "" && isWritable(pod, mount.Name) && seen.above(at, n) > 0 {
				found[n] = append(found[n], early)
			}
		}
	}
	return found
}

// nested returns the mount that mount j of a container lies below, if a step can write there, and where in that volume it lies.
func nested(pod *corev1.Pod, container *corev1.Container, paths []string, j int) (above *corev1.VolumeMount, point place) {
	k := innermostAbove(paths, paths[j])
	if k < 0 || !isWritable(pod, container.VolumeMounts[k].Name) {
		return nil, place{}
	}
	above = &container.VolumeMounts[k]
	return above, placeOf(above).below(strings.TrimPrefix(paths[j], paths[k]))
}

// places are where steps mount directories.
type places struct {
	// mounted are the steps that mount a directory and can write there, by volume and directory. points are the steps that have a mount in
	// a directory of another one. Both list a step as often as it has such a mount.
	mounted  map[string]map[string][]int
	points   map[place][]int
	ancestry ancestry
}

func placesOf(pod *corev1.Pod, steps []int) places {
	p := places{mounted: map[string]map[string][]int{}, points: map[place][]int{}}
	for n, i := range steps {
		container := &pod.Spec.Containers[i]
		paths := mountPaths(container)
		for j := range container.VolumeMounts {
			mount := &container.VolumeMounts[j]
			if strings.HasPrefix(mount.Name, contract.ReservedPrefix) {
				continue
			}
			if above, point := nested(pod, container, paths, j); above != nil {
				p.points[point] = append(p.points[point], n)
			}
			if !mount.ReadOnly {
				at := placeOf(mount)
				if p.mounted[at.volume] == nil {
					p.mounted[at.volume] = map[string][]int{}
				}
				p.mounted[at.volume][at.dir] = append(p.mounted[at.volume][at.dir], n)
			}
		}
	}
	return p
}

// earlier counts the steps of a list that may run before step n.
func (p places) earlier(steps []int, n int) int {
	count := 0
	for _, step := range steps {
		if p.ancestry.mayPrecede(step, n) {
			count++
		}
	}
	return count
}

// above counts the mounts of directories strictly above a place, in steps that may run before step n. It iterates over the mounts or over the
// path's elements, depending on which are fewer.
func (p places) above(at place, n int) int {
	mounted, dir, count := p.mounted[at.volume], at.dir, 0
	if len(mounted) < strings.Count(dir, "/") {
		for above, steps := range mounted {
			if dir != "" && above == "" || isBelow(dir, above) {
				count += p.earlier(steps, n)
			}
		}
		return count
	}
	for dir != "" {
		dir = dir[:max(0, strings.LastIndexByte(dir, '/'))]
		count += p.earlier(mounted[dir], n)
	}
	return count
}

// innermostAbove returns the index of the longest path that a path lies strictly below, or -1. All paths are clean.
func innermostAbove(paths []string, at string) int {
	found := -1
	for i, path := range paths {
		if isBelow(at, path) && (found < 0 || isBelow(path, paths[found])) {
			found = i
		}
	}
	return found
}

// checkedMounts returns the mounts that the agent checks at the step's turn, as AgentFlags.Mounts has them. The subPath of an emptyDir that no init
// container mounts is never a link when the first step starts. So its path in the volume tells whether a step has renamed it.
func checkedMounts(pod *corev1.Pod, mounts []earlyMount) []string {
	var all []string
	for _, m := range mounts {
		value := literal(m.mount.MountPath)
		isDisk := func(v corev1.Volume) bool {
			return v.Name == m.mount.Name && v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault
		}
		if subPath := literal(m.mount.SubPath) + m.mount.SubPathExpr; subPath != "" && !m.isInInit && slices.ContainsFunc(pod.Spec.Volumes, isDisk) {
			value += ":" + subPath
		}
		all = append(all, value)
	}
	return all
}

// checkStart rejects a subPath that plainly names a file which an earlier step is to write: the kubelet creates a directory of that name before
// the first step runs.
func checkStart(pod *corev1.Pod, mounts [][]earlyMount) error {
	for _, m := range slices.Concat(mounts...) {
		subPath := m.mount.SubPath + m.mount.SubPathExpr
		isEmptyDir := func(v corev1.Volume) bool { return v.Name == m.mount.Name && v.EmptyDir != nil }
		if m.above == nil && !m.isInInit && isFile(subPath) && isFile(m.mount.MountPath) && slices.ContainsFunc(pod.Spec.Volumes, isEmptyDir) {
			return fmt.Errorf("the step %q mounts subPath %s of the volume %q, which is created as a directory before the first step runs: "+
				"mount the whole volume and use the file below its mountPath, or write subPath as %s/ if it is a directory", m.step.Name, subPath, m.mount.Name, subPath)
		}
	}
	return nil
}

// fileSuffixes are common for files and rare for directories. Directories such as conf.d, python3.12 and example.com must not match.
var fileSuffixes = []string{
	"cer", "cfg", "cnf", "conf", "config", "crt", "css", "csv", "db", "env", "gz", "html", "ini", "jar", "js", "json", "kdbx", "key", "lock",
	"lua", "md", "p12", "pem", "pfx", "php", "pid", "pl", "properties", "py", "rb", "sh", "sql", "sqlite", "tar", "template", "tf", "tfvars", "tgz", "tmpl",
	"toml", "ts", "tsv", "txt", "war", "xml", "yaml", "yml", "zip",
}

// isFile reports whether a path plainly names a file. A path that ends in a slash names a directory.
func isFile(name string) bool {
	name = path.Base(name[strings.LastIndex(name, "/")+1:])
	suffix := strings.TrimPrefix(path.Ext(name), ".")
	return suffix != "" && len(suffix)+1 < len(name) && slices.Contains(fileSuffixes, strings.ToLower(suffix))
}

// startWarnings returns a sentence for each early mount: an earlier step may be meant to create what is mounted. It returns few, because the API
// server truncates warnings.
func startWarnings(mounts [][]earlyMount) []string {
	const most = 5
	var warnings []string
	all := slices.Concat(mounts...)
	for i, m := range all {
		if i == most {
			return append(warnings, fmt.Sprintf("%d more mounts are created when the Pod starts, before earlier steps run", len(all)-most))
		}
		if m.above != nil {
			warnings = append(warnings, fmt.Sprintf("the step %q mounts %q at %s, below %q: this directory is created in %q when the Pod starts, before earlier steps run: "+
				"choose a mountPath outside the other volumes if an earlier step creates or replaces it", m.step.Name, m.mount.Name, m.mount.MountPath, m.above.Name, m.above.Name))
			continue
		}
		warnings = append(warnings, fmt.Sprintf("the step %q mounts subPath %s of %q, which is created when the Pod starts, before earlier steps run: "+
			"mount the whole volume and use a path below it if an earlier step creates or replaces it", m.step.Name, m.mount.SubPath+m.mount.SubPathExpr, m.mount.Name))
	}
	return warnings
}
