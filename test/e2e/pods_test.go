//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestSequentialPod proves that the containers of a labelled Pod run one after another, and that `kubectl describe pod` shows their ends.
func TestSequentialPod(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "privileged")
	task, journal := recordingTask(t, namespace, 3)
	pod := harness.NewSequentialPod(namespace, "in-order")
	pod.Spec.Volumes = task.Spec.Template.Spec.Volumes
	for _, step := range task.Spec.Steps {
		pod.Spec.Containers = append(pod.Spec.Containers, step.Container)
	}
	cluster.Make(t, pod)
	cluster.AwaitPod(t, pod, corev1.PodSucceeded)
	if wrong := disorder(readJournal(t, journal), 3); len(wrong) > 0 {
		t.Errorf("the steps ran out of order:\n%s", strings.Join(wrong, "\n"))
	}
	wait.For(t, "the events", func(ctx context.Context) error {
		var list corev1.EventList
		if err := cluster.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		got := map[string]int{}
		for _, event := range list.Items {
			if event.InvolvedObject.UID == pod.UID {
				got[event.Message]++
			}
		}
		for step := 1; step <= 3; step++ {
			if n := got[fmt.Sprintf("step %q succeeded", fmt.Sprintf("step-%d", step))]; n != 1 {
				return fmt.Errorf("the end of step %d is told %d times: %v", step, n, got)
			}
		}
		return nil
	})
}

// TestHelper proves that the annotation selects some of the containers in another order, that the remaining container is a helper, and that
// the first step waits until the helper is ready.
func TestHelper(t *testing.T) {
	t.Parallel()
	ask := "wget -q -O - http://127.0.0.1:8000/index.html"
	server := harness.Shell("server", "mkdir -p /tmp/www; echo hello >/tmp/www/index.html; sleep 4; httpd -p 8000 -h /tmp/www; sleep 20; exit 0")
	server.ReadinessProbe = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8000)}}, PeriodSeconds: 1,
	}
	pod := harness.NewSequentialPod(cluster.NewNamespace(t, "baseline"), "helped", harness.Shell("second", ask), server, harness.Shell("first", ask))
	pod.Annotations = map[string]string{contract.StepsAnnotation: "first,second"}
	cluster.Make(t, pod)
	if got := pod.Annotations[contract.OrderAnnotation]; got != "0" {
		t.Errorf("the order at the beginning is %q, and not 0", got)
	}
	cluster.AwaitPod(t, pod, corev1.PodSucceeded)
	for _, step := range []string{"first", "second"} {
		if diff := cmp.Diff("hello\n", cluster.Log(t, pod.Namespace, pod.Name, step)); diff != "" {
			t.Errorf("what %s got of the helper (-want +got):\n%s", step, diff)
		}
	}
}

// TestOddPods proves that unusual but valid Pods run as they do without taskflow, in both deliveries: with namespaces of the node, other
// users, read-only file systems, and mounts at taskflow's paths.
func TestOddPods(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "privileged")
	report := corev1.Container{Name: "a", Image: "busybox:1.28", Command: []string{"sh", "-c", "echo a"}}
	tests := map[string]func(*corev1.Pod){
		"host-network": func(pod *corev1.Pod) { pod.Spec.HostNetwork = true },
		"host-pid":     func(pod *corev1.Pod) { pod.Spec.HostPID = true },
		"shared-pids":  func(pod *corev1.Pod) { pod.Spec.ShareProcessNamespace = new(true) },
		"generated":    func(pod *corev1.Pod) { pod.Name, pod.GenerateName = "", "generated-" },
		"some-user": func(pod *corev1.Pod) {
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(1<<31 - 2))}
		},
		"root": func(pod *corev1.Pod) { pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(0))} },
		"pod-resources": func(pod *corev1.Pod) {
			pod.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("40Mi")}}
		},
		"read-only": func(pod *corev1.Pod) {
			for i := range pod.Spec.Containers {
				pod.Spec.Containers[i].SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: new(true)}
			}
		},
		"mounts": func(pod *corev1.Pod) {
			pod.Spec.Volumes = []corev1.Volume{{Name: "etc", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "etc", MountPath: "/etc/podinfo", SubPath: "a/b"}}
			pod.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "etc", MountPath: "/etc/podinfo/below"}}
		},
		"image-command": func(pod *corev1.Pod) { // the log of the image's command isn't compared
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "c", Image: "devopscube/kubernetes-job-demo:latest", Args: []string{"3"}})
		},
		"init-and-sidecar": func(pod *corev1.Pod) {
			init, sidecar := *report.DeepCopy(), harness.Shell("sidecar", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
			init.Name, sidecar.RestartPolicy = "init", new(corev1.ContainerRestartPolicyAlways)
			pod.Spec.InitContainers = []corev1.Container{init, sidecar}
		},
		"own-message": func(pod *corev1.Pod) {
			pod.Spec.Containers[0].TerminationMessagePath = "/tmp/message"
			pod.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
		},
	}
	for name, edit := range tests {
		for _, delivery := range deliveries {
			t.Run(name+" "+delivery, func(t *testing.T) {
				t.Parallel()
				second := *report.DeepCopy()
				second.Name, second.Command[2] = "b", "echo b"
				pod := harness.NewSequentialPod(namespace, name+"-"+delivery, *report.DeepCopy(), second)
				pod.Annotations = map[string]string{contract.DeliveryAnnotation: delivery}
				edit(pod)
				cluster.Make(t, pod)
				cluster.AwaitPod(t, pod, corev1.PodSucceeded)
				if diff := cmp.Diff("a\nb\n", cluster.Log(t, namespace, pod.Name, "a")+cluster.Log(t, namespace, pod.Name, "b")); diff != "" {
					t.Errorf("output (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestStartedForEver proves that a Deployment with labelled Pods is refused, and that a labelled Pod with restartPolicy Always is accepted,
// with a warning.
func TestStartedForEver(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	labels := map[string]string{"app": "web", contract.SequentialLabel: "true"}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: namespace},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{harness.Shell("a", "true")}}},
		},
	}
	const want = "spec.template.metadata.labels: a Deployment restarts its Pods forever, and steps end: use a Job"
	if err := cluster.Create(t.Context(), deployment); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("creating the Deployment: %v, want a refusal with %q", err, want)
	}

	config, err := ctrl.GetConfig()
	if err != nil {
		t.Fatal(err)
	}
	var warned warnings
	config.WarningHandler = &warned
	warnedClient, err := client.New(config, client.Options{Scheme: cluster.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	pod := harness.NewSequentialPod(namespace, "always", harness.Shell("a", "true"))
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	if err := warnedClient.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(warnings{"spec.restartPolicy was changed from Always to Never, because steps must be able to finish: set it to Never or OnFailure"}, warned); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	cluster.AwaitPod(t, pod, corev1.PodSucceeded)
}

// warnings are the API server's warnings.
type warnings []string

var _ rest.WarningHandler = (*warnings)(nil)

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) { *w = append(*w, text) }

// TestWebhookDown proves that, while the operator is down, a Pod without a label is created at once, and the API server refuses a labelled
// one with a message that names the webhook. It isn't parallel, because it stops the operator.
func TestWebhookDown(t *testing.T) {
	namespace := cluster.NewNamespace(t, "baseline")
	start := stopOperator(t)

	began := time.Now()
	plain := harness.NewSequentialPod(namespace, "plain", harness.Shell("a", "true"))
	plain.Labels = nil
	cluster.Make(t, plain)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("creating a Pod without a label took %s", took)
	}
	for _, labels := range []map[string]string{{contract.SequentialLabel: "true"}, {contract.TaskLabel: "x"}} {
		pod := harness.NewSequentialPod(namespace, "labelled", harness.Shell("a", "true"))
		pod.Labels = labels
		wait.For(t, "the refusal", func(ctx context.Context) error {
			err := cluster.Create(ctx, pod, client.DryRunAll)
			if err == nil {
				return errors.New("it was created")
			}
			for _, part := range []string{"failed calling webhook", ".taskflow.practice.com", "taskflow-webhook-b.taskflow-system.svc"} {
				if !strings.Contains(err.Error(), part) {
					return fmt.Errorf("the refusal doesn't say %q: %w", part, err)
				}
			}
			return nil
		})
	}

	start()
	pod := harness.NewSequentialPod(namespace, "labelled", harness.Shell("a", "true"), harness.Shell("b", "true"))
	wait.For(t, "a labelled Pod to be taken", func(ctx context.Context) error { return cluster.Create(ctx, pod) })
	cluster.AwaitPod(t, pod, corev1.PodSucceeded)
}
