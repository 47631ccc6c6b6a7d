package podspec

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// build is a Task that Pods name.
const build = `
metadata: {name: build}
spec:
  suspend: true
  steps:
  - name: fetch
    image: git:1
    command: [git]
    args: [clone]
    env: [{name: DEPTH, value: "1"}, {name: TOKEN, valueFrom: {secretKeyRef: {name: token, key: t}}}]
    volumeMounts: [{name: work, mountPath: /work, subPathExpr: $(DEPTH)}]
    resources: {requests: {cpu: "1", memory: 1Gi}}
    terminationMessagePolicy: FallbackToLogsOnError
    imagePullPolicy: Never
    timeout: 5m
  - name: compile
    image: go:1
    script: "make\n"
    args: [all]
    onError: Continue
  - name: report
    image: busybox:1.28
    command: [echo]
    envFrom: [{configMapRef: {name: settings}}, {prefix: T_, secretRef: {name: token}}]
    ports: [{containerPort: 53, name: dns, protocol: UDP}, {containerPort: 80, name: web}]
    livenessProbe: {httpGet: {port: 80}}
    securityContext: {runAsGroup: 1, seccompProfile: {type: Localhost, localhostProfile: x}}
  sidecars:
  - {name: db, image: db:1, env: [{name: SIZE, value: small}]}
  template:
    spec:
      volumes: [{name: work, emptyDir: {}}, {name: cache, emptyDir: {medium: Memory}}]
      imagePullSecrets: [{name: registry}]
`

func readTask(t *testing.T, text string, edits ...func(*v1alpha1.Task)) *v1alpha1.Task {
	t.Helper()
	var task v1alpha1.Task
	if err := yaml.UnmarshalStrict([]byte(text), &task); err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		edit(&task)
	}
	return &task
}

// naming returns a Pod that names the Task, as the webhook sees it: with the defaults of the API server.
func naming(containers string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","labels":{"taskflow.practice.com/task":"build"}},` +
		`"spec":{"restartPolicy":"Never","containers":[` + containers + `]}}`
}

const (
	defaulted   = `"imagePullPolicy":"Always","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","resources":{}`
	placeholder = `{"name":"task","image":"task",` + defaulted + `,"unknown":{"kept":1.50},"volumeMounts":[{"name":"token","mountPath":"/var/run/x","unknown":true}]}`
)

// TestNamedTask proves that a Pod that names a Task gets everything that the Task's own Pod has, and keeps its own fields.
func TestNamedTask(t *testing.T) {
	raw, warnings := admit(t, []byte(naming(placeholder)), readTask(t, build))
	if diff := cmp.Diff([]string(nil), warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	pod := decodePod(t, raw)
	want := map[string]ran{
		"fetch":   {1, []string{"git", "clone"}},
		"compile": {2, []string{"/bin/sh", "/taskflow/scripts/2", "all"}},
		"report":  {3, []string{"echo"}},
	}
	if diff := cmp.Diff(want, agents(t, pod)); diff != "" {
		t.Errorf("what the agents are told (-want +got):\n%s", diff)
	}
	annotations := map[string]string{
		contract.StepsAnnotation:         "fetch,compile,report",
		contract.OrderAnnotation:         "1",
		contract.OptionsAnnotation:       `{"compile":{"continueOnError":true},"fetch":{"timeout":300000000000}}`,
		"taskflow.practice.com/script-2": "make\n",
	}
	if diff := cmp.Diff(annotations, pod.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	var names [3][]string
	for _, container := range pod.Spec.Containers {
		names[0] = append(names[0], container.Name+" "+container.Image)
	}
	for _, container := range pod.Spec.InitContainers {
		names[1] = append(names[1], container.Name)
	}
	for _, volume := range pod.Spec.Volumes {
		names[2] = append(names[2], volume.Name)
	}
	wantNames := [3][]string{
		{"fetch git:1", "compile go:1", "report busybox:1.28"}, {"db", "taskflow-agent"},
		{"work", "cache", "taskflow-scripts", "taskflow-bin", "taskflow-run", "taskflow-podinfo"},
	}
	if diff := cmp.Diff(wantNames, names); diff != "" {
		t.Errorf("containers, init containers and volumes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]corev1.LocalObjectReference{{Name: "registry"}}, pod.Spec.ImagePullSecrets); diff != "" {
		t.Errorf("pull secrets (-want +got):\n%s", diff)
	}
	if policy := pod.Spec.InitContainers[0].RestartPolicy; policy == nil || *policy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("the sidecar's restart policy is %v, want Always", policy)
	}

	// Unknown fields of the placeholder are still there, and the API server's defaults are not.
	first := decode(t, raw).(map[string]any)["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
	delete(first, "args")
	wantFirst := decode(t, []byte(`{
		"name": "fetch", "image": "git:1", "command": ["/taskflow/bin/agent"], "unknown": {"kept": 1.50}, "imagePullPolicy": "Never",
		"env": [{"name": "DEPTH", "value": "1"}, {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}}],
		"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}, "terminationMessagePolicy": "FallbackToLogsOnError",
		"volumeMounts": [
			{"name": "token", "mountPath": "/var/run/x", "unknown": true}, {"name": "work", "mountPath": "/work", "subPathExpr": "$(DEPTH)"},
			{"name": "taskflow-bin", "mountPath": "/taskflow/bin", "readOnly": true}, {"name": "taskflow-podinfo", "mountPath": "/etc/podinfo", "readOnly": true},
			{"name": "taskflow-run", "mountPath": "/taskflow/run", "readOnly": true},
			{"name": "taskflow-run", "mountPath": "/taskflow/run/1", "subPath": "1"}
		]}`))
	if diff := cmp.Diff(wantFirst, any(first)); diff != "" {
		t.Errorf("the first step (-want +got):\n%s", diff)
	}
	assertUnchanged(t, raw)
}

// TestNamedTaskCommands proves that command, args and script belong together: a command of the Pod replaces all three, and args alone apply
// to the Task's command or script. A list of steps selects steps of the Task and of the Pod.
func TestNamedTaskCommands(t *testing.T) {
	fetch, compile, report := []string{"git", "clone"}, []string{"/bin/sh", "/taskflow/scripts/2", "all"}, []string{"echo"}
	cases := map[string]struct {
		containers, steps string
		want              map[string]ran
		wantSteps         string
	}{
		"a command": {
			`{"name":"fetch","image":"task","command":["other"]}`, "",
			map[string]ran{"fetch": {1, []string{"other"}}, "compile": {2, compile}, "report": {3, report}}, "fetch,compile,report",
		},
		"args": {
			`{"name":"fetch","image":"task","args":["other"]}`, "",
			map[string]ran{"fetch": {1, []string{"git", "other"}}, "compile": {2, compile}, "report": {3, report}}, "fetch,compile,report",
		},
		"a command instead of a script": {
			`{"name":"compile","image":"task","command":["other"]}`, "",
			map[string]ran{"fetch": {1, fetch}, "compile": {2, []string{"other"}}, "report": {3, report}}, "fetch,compile,report",
		},
		"args of a script": {
			`{"name":"compile","image":"task","args":["test"]}`, "",
			map[string]ran{"fetch": {1, fetch}, "compile": {2, []string{"/bin/sh", "/taskflow/scripts/2", "test"}}, "report": {3, report}}, "fetch,compile,report",
		},
		"every step has its own container": {
			`{"name":"report","image":"task"},{"name":"compile","image":"task"},{"name":"fetch","image":"task"}`, "",
			map[string]ran{"fetch": {1, fetch}, "compile": {2, compile}, "report": {3, report}}, "fetch,compile,report",
		},
		"every step has its own container, beside the placeholder": {
			placeholder + `,{"name":"report","image":"task"},{"name":"compile","image":"task"},{"name":"fetch","image":"task"}`, "",
			map[string]ran{"fetch": {1, fetch}, "compile": {2, compile}, "report": {3, report}}, "fetch,compile,report",
		},
		"one step, which has its own container, beside the placeholder": {
			`{"name":"report","image":"task"},` + placeholder, "report", map[string]ran{"report": {1, report}}, "report",
		},
		"a helper": {
			placeholder + `,{"name":"helper","image":"unknown"}`, "",
			map[string]ran{"fetch": {1, fetch}, "compile": {2, compile}, "report": {3, report}}, "fetch,compile,report",
		},
		"some steps, in another order": {
			placeholder, "report,fetch", map[string]ran{"report": {1, report}, "fetch": {2, fetch}}, "report,fetch",
		},
		"a step of the Pod between steps of the Task": {
			`{"name":"mine","image":"x","command":["mine"]}`, "fetch,mine,report",
			map[string]ran{"fetch": {1, fetch}, "mine": {2, []string{"mine"}}, "report": {3, report}}, "fetch,mine,report",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := decodePod(t, []byte(naming(c.containers)))
			if c.steps != "" {
				pod.Annotations = map[string]string{contract.StepsAnnotation: c.steps}
			}
			raw, _ := admit(t, encode(t, pod), readTask(t, build))
			admitted := decodePod(t, raw)
			if diff := cmp.Diff(c.want, agents(t, admitted)); diff != "" {
				t.Errorf("what the agents are told (-want +got):\n%s", diff)
			}
			if _, scripted := admitted.Annotations["taskflow.practice.com/script-2"]; scripted != slices.Contains(c.want["compile"].Command, "/taskflow/scripts/2") {
				t.Errorf("what compile runs is %v, and a script is there: %t", c.want["compile"], scripted)
			}
			if diff := cmp.Diff(c.wantSteps, admitted.Annotations[contract.StepsAnnotation]); diff != "" {
				t.Errorf("the steps (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNamedTaskUnderALimitRange proves that the defaults of a namespace's LimitRange, which are in the Pod already, don't override the Task's values.
func TestNamedTaskUnderALimitRange(t *testing.T) {
	pod := decodePod(t, []byte(naming(`{"name":"fetch","image":"task"},{"name":"report","image":"task"}`)))
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Resources = corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("50m"), "memory": resource.MustParse("10Mi")},
			Limits:   corev1.ResourceList{"cpu": resource.MustParse("100m")},
		}
	}
	pod.Annotations = map[string]string{
		"kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu, memory request for container fetch; cpu limit for container fetch; cpu limit for container report",
	}
	raw, _ := admit(t, encode(t, pod), readTask(t, build))
	containers := decodePod(t, raw).Spec.Containers
	want := corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}}
	if diff := cmp.Diff(want, corev1.ResourceRequirements{Requests: containers[0].Resources.Requests}); diff != "" || len(containers[0].Resources.Limits) > 0 {
		t.Errorf("resources of fetch (-want +got), with the limits %v:\n%s", containers[0].Resources.Limits, diff)
	}
	if got := containers[1].Resources; got.Requests.Cpu().String() != "50m" || len(got.Limits) > 0 {
		t.Errorf("resources of report, which the user has set in part: %+v", got)
	}
}

// TestNamedTaskKeepsThePods proves that the Pod's own volumes and pull secrets take precedence, and that ignored fields of the Task cause a warning.
func TestNamedTaskKeepsThePods(t *testing.T) {
	task := readTask(t, build, func(task *v1alpha1.Task) {
		task.Spec.Template.Metadata.Labels = map[string]string{"team": "x"}
		task.Spec.Template.Metadata.Annotations = map[string]string{"mine": "x", contract.HandoffAnnotation: contract.HandoffController}
		task.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"}
		task.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		task.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "prepare"}}
		task.Spec.Timeout = &metav1.Duration{Duration: time.Hour}
	})
	pod := decodePod(t, []byte(naming(placeholder)))
	pod.Spec.Volumes = []corev1.Volume{{Name: "cache", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/mine"}}}}
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "mine"}, {Name: "registry"}}
	raw, warnings := admit(t, encode(t, pod), task)
	admitted := decodePod(t, raw)
	if diff := cmp.Diff(pod.Spec.Volumes[0], admitted.Spec.Volumes[0]); diff != "" {
		t.Errorf("the Pod's volume (-was +is):\n%s", diff)
	}
	if diff := cmp.Diff(pod.Spec.ImagePullSecrets, admitted.Spec.ImagePullSecrets); diff != "" {
		t.Errorf("pull secrets (-was +is):\n%s", diff)
	}
	want := []string{`ignored fields of the Task "build", which apply to its own Pod only: ` +
		`template.metadata.annotations, template.metadata.labels, template.spec.initContainers, template.spec.nodeSelector, timeout`}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// TestNamedTaskAnnotations proves that the shared annotations of a Task's template apply to a Pod that names the Task, unless it has its own.
func TestNamedTaskAnnotations(t *testing.T) {
	type run struct {
		Alone    bool
		Delivery string // as annotated
		ByInit   bool
		Other    string
		Warnings []string
	}
	const handoff, delivery = contract.HandoffAnnotation, contract.DeliveryAnnotation
	cases := map[string]struct {
		ofTask, ofPod map[string]string
		want          run
	}{
		"none":                 {nil, nil, run{false, "", true, "", nil}},
		"the Task's":           {map[string]string{handoff: "controller", delivery: "image"}, nil, run{true, "image", false, "", nil}},
		"beside the Pod's":     {map[string]string{handoff: "controller"}, map[string]string{"other": "x"}, run{true, "", true, "x", nil}},
		"the Pod's come first": {map[string]string{delivery: "image"}, map[string]string{delivery: "init"}, run{false, "init", true, "", nil}},
		"others": {map[string]string{"other": "x"}, nil, run{false, "", true, "", []string{
			`ignored fields of the Task "build", which apply to its own Pod only: template.metadata.annotations`,
		}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := decodePod(t, []byte(naming(placeholder)))
			pod.Annotations = c.ofPod
			raw, warnings := admit(t, encode(t, pod), readTask(t, build, func(task *v1alpha1.Task) { task.Spec.Template.Metadata.Annotations = c.ofTask }))
			admitted := decodePod(t, raw)
			flags, err := contract.ParseAgentFlags(admitted.Spec.Containers[0].Args)
			if err != nil {
				t.Fatal(err)
			}
			got := run{flags.ControllerOnly, admitted.Annotations[delivery], slices.ContainsFunc(admitted.Spec.InitContainers, isAgentContainer), admitted.Annotations["other"], warnings}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the Pod (-want +got):\n%s", diff)
			}
			if (admitted.Annotations[handoff] == contract.HandoffController) != flags.ControllerOnly {
				t.Errorf("the agents are alone: %t, and the annotation is %q", flags.ControllerOnly, admitted.Annotations[handoff])
			}
			assertUnchanged(t, raw)
		})
	}
}

// TestNamedTaskRejects proves each rejection of a Pod that names a Task.
func TestNamedTaskRejects(t *testing.T) {
	noSuchStep := func(name string) string {
		return `the container "` + name + `" has image: task, but the Task "build" has no step "` + name + `": fix its name or image (the Task's steps: fetch, compile, report)`
	}
	cases := map[string]struct {
		containers string
		edit       func(*corev1.Pod)
		want       string
	}{
		"the image of an unknown step": {`{"name":"fetsh","image":"task"}`, nil, noSuchStep("fetsh")},
		"the named step is only a placeholder": {
			placeholder, func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: "task"} }, noSuchStep("task"),
		},
		"a step that neither has": {
			placeholder, func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: "report,fetsh"} },
			`metadata.annotations: taskflow.practice.com/steps names "fetsh", which is neither a step of the Task "build" nor a container of the Pod: fix the name (the Task's steps: fetch, compile, report)`,
		},
		"the image of a step that is left out": {
			placeholder + `,{"name":"fetch","image":"task"}`, func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: "report"} },
			`the container "fetch" has image: task, but the annotation taskflow.practice.com/steps omits the Task's step of that name: add the step to the annotation, or remove the container`,
		},
		"a failure that would be restarted endlessly": {
			placeholder, func(pod *corev1.Pod) { pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure },
			`the Task "build": spec.steps[1].onError: Continue has no effect with restartPolicy: OnFailure, which restarts a failed step until it succeeds: set spec.restartPolicy to Never`,
		},
		"a Deployment's": {
			placeholder, func(pod *corev1.Pod) {
				pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", Controller: new(true)}}
			},
			`metadata.ownerReferences: the ReplicaSet "web" replaces Pods that have succeeded, and steps must be able to finish: use a Job, or remove the taskflow labels from the Pod template`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := decodePod(t, []byte(naming(c.containers)))
			if c.edit != nil {
				c.edit(pod)
			}
			if diff := cmp.Diff(outcome{Rejection: c.want}, mutateRaw(t, encode(t, pod), readTask(t, build))); diff != "" {
				t.Errorf("the outcome (-want +got):\n%s", diff)
			}
		})
	}
}
