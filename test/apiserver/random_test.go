//go:build apiserver

package apiserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// randomPods is the number of Pods in TestRandomPods.
const randomPods = 2000

// TestRandomPods proves four things for many random Pods. The API server accepts the mutated Pod. A second call of the webhook changes
// nothing. Without the additions, the Pod is what the API server makes of it without the label, commands included. And without the label
// the Pod comes back as it does from a namespace that the webhook isn't called for (for every eighth Pod).
func TestRandomPods(t *testing.T) {
	seed := randomSeed(t)
	namespace := cluster.NewNamespace(t, "privileged")
	numbers := make(chan uint64)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for number := range numbers {
				pod := randomPod(rand.New(rand.NewPCG(seed, number)))
				pod.Namespace = namespace
				if err := tryRandomPod(t.Context(), pod, number%8 == 0); err != nil {
					t.Errorf("Pod %d of seed %d: %v", number, seed, err)
				}
			}
		})
	}
	for number := range uint64(randomPods) {
		if t.Failed() {
			break
		}
		numbers <- number
	}
	close(numbers)
	workers.Wait()
}

// TestRandomPodsOfTasks proves for random Pods that name a random Task that the API server accepts them, that a second call changes
// nothing, and that each container of the Pod keeps its own fields.
func TestRandomPodsOfTasks(t *testing.T) {
	const pods = 200
	seed := randomSeed(t)
	namespace := cluster.NewNamespace(t, "privileged")
	for number := range uint64(pods) {
		random := rand.New(rand.NewPCG(seed, number))
		task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("random-%d", number), Namespace: namespace}}
		task.Spec.Suspend = true
		task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Volumes: randomVolumes(random)}}
		for i := range 1 + random.IntN(4) {
			task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: randomContainer(random, fmt.Sprintf("c%d", i), &task.Spec.Template.Spec)})
		}
		if err := cluster.Create(t.Context(), task); err != nil {
			t.Fatalf("Task %d of seed %d: %v", number, seed, err)
		}
		pod := randomPod(random)
		pod.Namespace, pod.Labels, pod.Annotations = namespace, taskLabel(task.Name), nil
		before := pod.DeepCopy()
		if err := dryRun(t.Context(), pod); err != nil {
			t.Fatalf("Pod %d of seed %d: %v\n%+v\n%+v", number, seed, err, before, task.Spec)
		}
		again := pod.DeepCopy()
		if err := dryRun(t.Context(), again); err != nil {
			t.Fatalf("Pod %d of seed %d, the second pass: %v", number, seed, err)
		}
		if diff := cmp.Diff(pod, again); diff != "" {
			t.Errorf("Pod %d of seed %d: a second pass changed it (-once +twice):\n%s", number, seed, diff)
		}
		if len(agents(t, pod)) != len(task.Spec.Steps) {
			t.Errorf("Pod %d of seed %d: its steps are %v", number, seed, agents(t, pod))
		}
		for i, was := range before.Spec.Containers {
			is := pod.Spec.Containers[i]
			mounted := func(m corev1.VolumeMount) bool {
				return slices.ContainsFunc(is.VolumeMounts, func(other corev1.VolumeMount) bool { return reflect.DeepEqual(m, other) })
			}
			if is.Name != was.Name || is.Image != was.Image || len(slices.DeleteFunc(slices.Clone(was.VolumeMounts), mounted)) > 0 ||
				len(was.Env) > 0 && cmp.Diff(was.Env, is.Env[:len(was.Env)]) != "" {
				t.Errorf("Pod %d of seed %d: container %d was\n%+v\nand is\n%+v", number, seed, i, was, is)
			}
			if i < len(task.Spec.Steps) && !strings.HasSuffix(agents(t, pod)[is.Name], strings.Join(was.Command, " ")+joined(was.Args)) {
				t.Errorf("Pod %d of seed %d: container %d ran %q %q, and the agent runs %q", number, seed, i, was.Command, was.Args, agents(t, pod)[is.Name])
			}
		}
		if t.Failed() {
			break
		}
	}
}

func joined(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return " " + strings.Join(args, " ")
}

func randomSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("%s: the seed is %d, run with SEED=%d to have the same Pods\n", t.Name(), seed, seed)
	return seed
}

func tryRandomPod(ctx context.Context, pod *corev1.Pod, alsoElsewhere bool) error {
	plain := pod.DeepCopy()
	plain.Labels = nil
	elsewhere := plain.DeepCopy()
	mutated := pod.DeepCopy()
	for what, pod := range map[string]*corev1.Pod{"without the label": plain, "sequential": mutated} {
		if err := dryRun(ctx, pod); err != nil {
			return fmt.Errorf("%s: %w\n%+v", what, err, pod)
		}
	}
	if alsoElsewhere {
		elsewhere.Namespace = "kube-system"
		if err := dryRun(ctx, elsewhere); err != nil {
			return fmt.Errorf("in kube-system: %w\n%+v", err, elsewhere)
		}
		elsewhere.Namespace = plain.Namespace
		if diff := cmp.Diff(elsewhere, plain); diff != "" {
			return fmt.Errorf("without the label it was changed (-kube-system +here):\n%s", diff)
		}
	}
	again := mutated.DeepCopy()
	if err := dryRun(ctx, again); err != nil {
		return fmt.Errorf("the second pass: %w", err)
	}
	if diff := cmp.Diff(mutated, again); diff != "" {
		return fmt.Errorf("a second pass changed it (-once +twice):\n%s", diff)
	}

	// The API server sets these when it creates a Pod.
	plain.Labels = pod.Labels
	if plain.Spec.RestartPolicy == corev1.RestartPolicyAlways {
		plain.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	if diff := cmp.Diff(plain, unwrap(mutated, plain)); diff != "" {
		return fmt.Errorf("what was there (-without the label +unwrapped):\n%s", diff)
	}
	return nil
}

// dryRun creates the Pod in a dry run, and clears the fields that the API server generates or derives.
func dryRun(ctx context.Context, pod *corev1.Pod) error {
	pod.ResourceVersion, pod.UID = "", ""
	if err := cluster.Create(ctx, pod, client.DryRunAll); err != nil {
		return err
	}
	if pod.GenerateName != "" {
		pod.Name = ""
	}
	pod.UID, pod.CreationTimestamp, pod.ManagedFields = "", metav1.Time{}, nil
	pod.Status = corev1.PodStatus{}
	return nil
}

// unwrap removes the webhook's additions from a Pod: at the ends of lists, and around the commands of the steps.
func unwrap(mutated, original *corev1.Pod) *corev1.Pod {
	pod := mutated.DeepCopy()
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	pod.Annotations = original.Annotations // the webhook's own tests check them
	pod.Spec.InitContainers = trim(pod.Spec.InitContainers, len(original.Spec.InitContainers))
	pod.Spec.Volumes = trim(pod.Spec.Volumes, len(original.Spec.Volumes))
	for i := range pod.Spec.Containers {
		container, was := &pod.Spec.Containers[i], original.Spec.Containers[i]
		number := slices.Index(steps, container.Name) + 1
		if number == 0 {
			continue
		}
		container.VolumeMounts = trim(container.VolumeMounts, len(was.VolumeMounts))
		flags, err := contract.ParseAgentFlags(container.Args)
		if err == nil && flags.WaitContent == number && slices.Equal(container.Command, []string{contract.AgentPath}) {
			container.Command, container.Args = split(flags.Command, len(was.Command))
		}
		if probe := container.StartupProbe; probe != nil && probe.Exec != nil {
			if was.StartupProbe == nil {
				container.StartupProbe = nil
			} else if started, err := contract.ParseStartedFlags(probe.Exec.Command[2:]); err == nil {
				probe.Exec.Command = started.Command
			}
		}
		if container.StartupProbe != nil && was.StartupProbe != nil {
			container.StartupProbe.FailureThreshold = was.StartupProbe.FailureThreshold
		}
	}
	return pod
}

func trim[T any](list []T, length int) []T {
	if length == 0 || len(list) < length {
		return nil
	}
	return list[:length]
}

func split(argv []string, command int) ([]string, []string) {
	if len(argv) < command {
		return argv, nil
	}
	return argv[:command:command], trim(argv[command:], len(argv)-command)
}

// randomPod returns a Pod that the API server accepts.
func randomPod(random *rand.Rand) *corev1.Pod {
	maybe := func() bool { return random.IntN(3) == 0 }
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: sequentialLabel()}}
	if pod.Name = "random"; maybe() {
		pod.Name, pod.GenerateName = "", "random-"
	}
	if maybe() {
		pod.Annotations = map[string]string{"example.com/a_b": "c"}
	}
	spec := &pod.Spec
	spec.RestartPolicy = pick(random, "", corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	if maybe() {
		spec.TerminationGracePeriodSeconds = new(pick(random, int64(0), 1, 30, 300))
	}
	if maybe() {
		spec.ActiveDeadlineSeconds = new(int64(60))
	}
	spec.HostNetwork, spec.HostPID = maybe(), maybe()
	if !spec.HostPID && maybe() {
		spec.ShareProcessNamespace = new(true)
	}
	if !spec.HostNetwork && !spec.HostPID && maybe() {
		spec.HostUsers = new(false)
	}
	if maybe() {
		spec.SecurityContext = &corev1.PodSecurityContext{
			RunAsUser: new(pick(random, int64(0), 1, 65534, 1<<31-1)), FSGroup: new(int64(7)), SupplementalGroups: []int64{1, 2},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
	}
	if maybe() {
		spec.Resources = &corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")},
			Limits:   corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("2Gi")},
		}
	}
	if maybe() {
		spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: new("gpu")}}
	}
	if maybe() {
		spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "secret"}}
		spec.NodeSelector = map[string]string{"disk": "ssd"}
		spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		spec.HostAliases = []corev1.HostAlias{{IP: "10.0.0.1", Hostnames: []string{"x"}}}
	}
	spec.Volumes = randomVolumes(random)
	for i := range random.IntN(3) {
		init := randomContainer(random, fmt.Sprintf("init%d", i), spec)
		init.StartupProbe, init.ReadinessProbe, init.LivenessProbe, init.Lifecycle = nil, nil, nil, nil
		if maybe() {
			init.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}
		spec.InitContainers = append(spec.InitContainers, init)
	}
	var names []string
	for i := range 1 + random.IntN(5) {
		container := randomContainer(random, fmt.Sprintf("c%d", i), spec)
		spec.Containers = append(spec.Containers, container)
		names = append(names, container.Name)
	}
	if maybe() {
		random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		names = names[:1+random.IntN(len(names))]
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.StepsAnnotation, contract.FormatSteps(names))
	}
	return pod
}

func randomVolumes(random *rand.Rand) []corev1.Volume {
	all := []corev1.Volume{
		{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x", Type: new(corev1.HostPathUnset)}}},
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}},
		{Name: "claim", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "p"}}},
		{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		}}}},
	}
	return all[:1+random.IntN(len(all))]
}

func randomContainer(random *rand.Rand, name string, spec *corev1.PodSpec) corev1.Container {
	maybe := func() bool { return random.IntN(3) == 0 }
	words := func(least int) []string {
		var all []string
		for range least + random.IntN(4) {
			all = append(all, pick(random, "sh", "-c", "--", "--command", "--wait", "install", "echo $(A) $$", "a\nb", `"<&>"`, "ä\u2028", contract.AgentPath, ""))
		}
		return all
	}
	container := corev1.Container{
		Name: name, Image: pick(random, "busybox", "busybox:1", "example.com/a/b@sha256:"+digest), Command: words(1), Args: words(0),
		ImagePullPolicy: pick(random, "", corev1.PullAlways, corev1.PullNever), Stdin: maybe(), TTY: maybe(),
		WorkingDir:               pick(random, "", "/work", "relative"),
		TerminationMessagePath:   pick(random, "", "/dev/termination-log", "/tmp/log"),
		TerminationMessagePolicy: pick(random, "", corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError),
	}
	if maybe() {
		container.Env = []corev1.EnvVar{
			{Name: "A", Value: "$(B)"}, {Name: "B", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}},
		}
		container.EnvFrom = []corev1.EnvFromSource{{Prefix: "X_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}
	}
	paths := []string{"/work", "/etc", "/etc/podinfo", "/etc/podinfo/x", "/etc/podinfo2", "/taskflow2", "data", "/var/run/secrets"}
	random.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	for i := range random.IntN(4) {
		mount := corev1.VolumeMount{Name: pick(random, spec.Volumes...).Name, MountPath: paths[i], ReadOnly: maybe()}
		switch random.IntN(4) {
		case 0:
			mount.SubPath = "a/b"
		case 1:
			mount.SubPathExpr = "$(A)"
		}
		container.VolumeMounts = append(container.VolumeMounts, mount)
	}
	if maybe() {
		container.Resources = corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("10m")}, Limits: corev1.ResourceList{"memory": resource.MustParse("64Mi")},
		}
	}
	if len(spec.ResourceClaims) > 0 && maybe() {
		container.Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}}
	}
	if maybe() {
		container.SecurityContext = &corev1.SecurityContext{
			ReadOnlyRootFilesystem: new(maybe()), RunAsUser: new(pick(random, int64(0), 1000)), RunAsNonRoot: new(false),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		}
	}
	if maybe() {
		exec := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"probe", "--command"}}}
		get := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80)}}
		container.LivenessProbe = &corev1.Probe{ProbeHandler: pick(random, exec, get)}
		if maybe() {
			container.StartupProbe = &corev1.Probe{ProbeHandler: pick(random, exec, get), FailureThreshold: 3}
		}
		container.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
	}
	return container
}

func pick[T any](random *rand.Rand, values ...T) T { return values[random.IntN(len(values))] }

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
