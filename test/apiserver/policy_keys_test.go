//go:build apiserver

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// warnings collects the API server's warnings.
type warnings struct {
	lock sync.Mutex
	said []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.said = append(w.said, text)
}

// take returns the warnings since the last call, without the names of policy and binding that the API server puts in front.
func (w *warnings) take() []string {
	w.lock.Lock()
	defer w.lock.Unlock()
	var said []string
	for _, text := range w.said {
		if _, sentence, ok := strings.Cut(text, "with binding 'taskflow-keys': "); ok {
			said = append(said, sentence)
		}
	}
	w.said = nil
	return said
}

// warned returns a client that collects its warnings.
func warned(t *testing.T) (client.Client, *warnings) {
	t.Helper()
	handler := &warnings{}
	config := rest.CopyConfig(environment.Config)
	config.WarningHandler = handler
	as, err := client.New(config, client.Options{Scheme: cluster.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return as, handler
}

// Objects that are or contain a Pod template. OWN, JOB and TEMPLATE stand for the metadata of the object, of a CronJob's Jobs, and of the
// template.
const (
	podWith     = `{apiVersion: v1, kind: Pod, metadata: OWN, spec: {containers: [{name: a, image: a, command: [a]}]}}`
	jobWith     = `{apiVersion: batch/v1, kind: Job, metadata: OWN, spec: {template: {metadata: TEMPLATE, spec: {restartPolicy: Never, containers: [{name: a, image: a}, {name: b, image: b}]}}}}`
	cronJobWith = `{apiVersion: batch/v1, kind: CronJob, metadata: OWN, spec: {schedule: "0 0 1 1 *", jobTemplate: {metadata: JOB, spec: {template: {metadata: TEMPLATE, spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}}}`
	taskWith    = `{apiVersion: api.practice.com/v1alpha1, kind: Task, metadata: OWN, spec: {suspend: true, steps: [{name: a, image: a}], template: {metadata: TEMPLATE}}}`
	foreverWith = `{apiVersion: apps/v1, kind: KIND, metadata: OWN, spec: {selector: {matchLabels: {app: a}}, template: {metadata: TEMPLATE, spec: {containers: [{name: a, image: a}]}}}}`
)

// filled puts metadata into a manifest, and creates the object in a dry run.
func filled(t *testing.T, as client.Client, namespace, manifest string, own, job, template string) error {
	t.Helper()
	if own == "" {
		own = "{}"
	}
	if job == "" {
		job = "{}"
	}
	if template == "" {
		template = "{}"
	}
	object := parse(t, strings.NewReplacer("OWN", own, "JOB", job, "TEMPLATE", template).Replace(manifest))
	object.SetNamespace(namespace)
	object.SetName("object")
	return as.Create(t.Context(), object, client.DryRunAll)
}

// TestUnknownKeysAreWarnedOf proves that the API server warns of a label or an annotation of taskflow's that has no effect, because it is
// misspelt, outside the Pod template, or without the label that it needs. Other objects cause no warning.
func TestUnknownKeysAreWarnedOf(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	as, handler := warned(t)
	const misspelt = `{labels: {taskflow.practice.com/sequentail: "true"}}`
	installPolicy(t, "keys.yaml", namespace, func() error {
		if err := filled(t, as, namespace, podWith, misspelt, "", ""); err != nil {
			t.Fatal(err)
		}
		if len(handler.take()) > 0 {
			return errors.New("warned")
		}
		return nil
	})
	unknownLabel := func(keys string) string {
		return "labels: taskflow does not know " + keys + ", and ignores it: the labels are taskflow.practice.com/sequential and taskflow.practice.com/task"
	}
	unknownAnnotation := func(keys string) string {
		return "annotations: taskflow does not know " + keys + ", and ignores it: the annotations are taskflow.practice.com/steps, taskflow.practice.com/handoff and taskflow.practice.com/agent-delivery"
	}
	noLabel := func(keys, path string) string {
		return "metadata.labels: " + keys + " has no effect here, and all containers start at once: set it in " + path + ".labels"
	}
	unlabelled := func(keys, path string) string {
		return path + ".annotations: " + keys + ` no effect without the label taskflow.practice.com/sequential: "true", and all containers start at once: set the label in ` + path + ".labels"
	}
	const sequential = `{labels: {taskflow.practice.com/sequential: "true"}}`
	const steps, ofTask = `{annotations: {taskflow.practice.com/steps: a}}`, `{labels: {taskflow.practice.com/task: t}, annotations: {taskflow.practice.com/steps: a}}`
	const app, appSequential = `{labels: {app: a}}`, `{labels: {app: a, taskflow.practice.com/sequential: "true"}}`
	forever := func(kind string) string { return strings.ReplaceAll(foreverWith, "KIND", kind) }
	many := []string{`taskflow.practice.com/sequentail: "true"`}
	for i := range 100 {
		many = append(many, fmt.Sprintf(`l%d: ""`, i))
	}
	manyAndSteps := "{labels: {" + strings.Join(many, ", ") + "%s}, annotations: {taskflow.practice.com/steps: a}}"
	cases := map[string]struct {
		manifest, own, job, template string
		want                         []string
	}{
		"nothing":                                   {podWith, "", "", "", nil},
		"a Pod's label":                             {podWith, misspelt, "", "", []string{unknownLabel("taskflow.practice.com/sequentail")}},
		"another prefix":                            {podWith, `{labels: {taskflow.practise.com/sequential: "true"}}`, "", "", []string{unknownLabel("taskflow.practise.com/sequential")}},
		"the API's prefix":                          {podWith, `{labels: {api.practice.com/sequential: "true"}}`, "", "", []string{unknownLabel("api.practice.com/sequential")}},
		"a Pod's annotation":                        {podWith, `{annotations: {taskflow.practice.com/step: "a"}}`, "", "", []string{unknownAnnotation("taskflow.practice.com/step")}},
		"a label among the annotations":             {podWith, `{annotations: {taskflow.practice.com/sequential: "true"}}`, "", "", []string{"annotations: taskflow does not know taskflow.practice.com/sequential, and ignores it: set it as a label"}},
		"an annotation among the labels":            {podWith, `{labels: {taskflow.practice.com/steps: "a"}}`, "", "", []string{unknownLabel("taskflow.practice.com/steps")}},
		"a sequential Pod":                          {podWith, sequential, "", "", nil},
		"a Pod of the operator's":                   {podWith, `{labels: {taskflow.practice.com/replica: a}}`, "", "", nil},
		"a Pod that a controller makes":             {podWith, `{labels: {taskflow.practice.com/sequentail: "true"}, ownerReferences: [{apiVersion: v1, kind: X, name: x, uid: x}]}`, "", "", nil},
		"two keys":                                  {jobWith, `{labels: {taskflow.practice.com/b: ""}}`, "", `{labels: {taskflow.practice.com/a: ""}}`, []string{unknownLabel("taskflow.practice.com/a, taskflow.practice.com/b")}},
		"a Job's template":                          {jobWith, "", "", misspelt, []string{unknownLabel("taskflow.practice.com/sequentail")}},
		"a Job's label":                             {jobWith, sequential, "", "", []string{noLabel("taskflow.practice.com/sequential", "spec.template.metadata")}},
		"a Job's Task":                              {jobWith, `{labels: {taskflow.practice.com/task: build}}`, "", "", []string{noLabel("taskflow.practice.com/task", "spec.template.metadata")}},
		"a Job's label, and its template's":         {jobWith, sequential, "", sequential, nil},
		"a Job's label that says no":                {jobWith, `{labels: {taskflow.practice.com/sequential: "false"}}`, "", "", nil},
		"a sequential Job":                          {jobWith, "", "", sequential, nil},
		"a Job's annotation":                        {jobWith, `{annotations: {taskflow.practice.com/steps: "b,a"}}`, "", sequential, []string{"metadata.annotations: taskflow.practice.com/steps has no effect here: set it in spec.template.metadata.annotations"}},
		"a CronJob's template":                      {cronJobWith, "", "", misspelt, []string{unknownLabel("taskflow.practice.com/sequentail")}},
		"a CronJob's label":                         {cronJobWith, sequential, "", "", []string{noLabel("taskflow.practice.com/sequential", "spec.jobTemplate.spec.template.metadata")}},
		"a label of a CronJob's Jobs":               {cronJobWith, "", sequential, "", []string{noLabel("taskflow.practice.com/sequential", "spec.jobTemplate.spec.template.metadata")}},
		"a sequential CronJob":                      {cronJobWith, "", "", sequential, nil},
		"a Deployment's label":                      {forever("Deployment"), sequential, "", app, []string{noLabel("taskflow.practice.com/sequential", "spec.template.metadata")}},
		"a Deployment's template":                   {forever("Deployment"), "", "", `{labels: {app: a, taskflow.practice.com/sequentail: "true"}}`, []string{unknownLabel("taskflow.practice.com/sequentail")}},
		"a Deployment that is all the same to us":   {forever("Deployment"), "", "", app, nil},
		"a Deployment that is refused elsewhere":    {forever("Deployment"), "", "", appSequential, nil},
		"a Task":                                    {taskWith, "", "", "", nil},
		"a Task's annotation":                       {taskWith, `{annotations: {taskflow.practice.com/handoff: controller}}`, "", "", []string{"metadata.annotations: taskflow.practice.com/handoff has no effect here: set it in spec.template.metadata.annotations"}},
		"a Task's unknown annotation":               {taskWith, `{annotations: {taskflow.practice.com/stop: "true"}}`, "", "", []string{unknownAnnotation("taskflow.practice.com/stop")}},
		"too many keys to look at":                  {podWith, "{labels: {" + strings.Join(many, ", ") + "}}", "", "", nil},
		"steps without a label":                     {podWith, steps, "", "", []string{unlabelled("taskflow.practice.com/steps has", "metadata")}},
		"a hand-off and a delivery without a label": {podWith, `{annotations: {taskflow.practice.com/handoff: controller, taskflow.practice.com/agent-delivery: init}}`, "", "", []string{unlabelled("taskflow.practice.com/handoff, taskflow.practice.com/agent-delivery have", "metadata")}},
		"steps with a misspelt label":               {podWith, `{labels: {taskflow.practice.com/sequentail: "true"}, annotations: {taskflow.practice.com/steps: a}}`, "", "", []string{unknownLabel("taskflow.practice.com/sequentail"), unlabelled("taskflow.practice.com/steps has", "metadata")}},
		"steps with a label that says no":           {podWith, `{labels: {taskflow.practice.com/sequential: "false"}, annotations: {taskflow.practice.com/steps: a}}`, "", "", nil},
		"steps with the label, and many others":     {podWith, fmt.Sprintf(manyAndSteps, `, taskflow.practice.com/sequential: "true"`), "", "", nil},
		"steps with many other labels":              {podWith, fmt.Sprintf(manyAndSteps, ""), "", "", []string{unlabelled("taskflow.practice.com/steps has", "metadata")}},
		"steps in a Job's template":                 {jobWith, "", "", steps, []string{unlabelled("taskflow.practice.com/steps has", "spec.template.metadata")}},
		"steps and a Task in a Job's template":      {jobWith, "", "", ofTask, nil},
		"steps in the template, and a Job's label":  {jobWith, sequential, "", steps, []string{noLabel("taskflow.practice.com/sequential", "spec.template.metadata")}},
		"steps in a CronJob's template":             {cronJobWith, "", "", steps, []string{unlabelled("taskflow.practice.com/steps has", "spec.jobTemplate.spec.template.metadata")}},
		"steps in a Deployment's template":          {forever("Deployment"), "", "", `{labels: {app: a}, annotations: {taskflow.practice.com/steps: a}}`, []string{`spec.template.metadata.annotations: taskflow.practice.com/steps has no effect in a Deployment, and all containers start at once: use a Job with the label taskflow.practice.com/sequential: "true"`}},
		"a hand-off in a Task's template":           {taskWith, "", "", `{annotations: {taskflow.practice.com/handoff: controller}}`, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if err := filled(t, as, namespace, c.manifest, c.own, c.job, c.template); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, handler.take()); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTemplatesAreRefused proves that an object is refused at creation if the webhook would refuse the Pods of its template. A Job would
// otherwise wait forever, with an event as its only sign.
func TestTemplatesAreRefused(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	const sequential, odd = `{labels: {taskflow.practice.com/sequential: "true"}}`, `{labels: {taskflow.practice.com/sequential: "yes"}}`
	const appSequential = `{labels: {app: a, taskflow.practice.com/sequential: "true"}}`
	installPolicy(t, "templates.yaml", namespace, func() error { return filled(t, cluster, namespace, jobWith, "", "", odd) })
	forever := func(kind string) string { return strings.ReplaceAll(foreverWith, "KIND", kind) }
	annotated := func(annotations string) string {
		return `{labels: {taskflow.practice.com/sequential: "true"}, annotations: {` + annotations + `}}`
	}
	restarts := func(kind string) string {
		return "spec.template.metadata.labels: a " + kind + " restarts its Pods forever, and steps end: use a Job, or remove the labels that start with taskflow.practice.com/"
	}
	hook := strings.Replace(jobWith, "image: b", "image: b, lifecycle: {postStart: {exec: {command: [x]}}}", 1)
	const early = `spec.template.spec.containers: the step "b" has lifecycle.postStart, which would run before its turn: put it into the command`
	cases := map[string]struct{ manifest, template, want string }{
		"a Job":                            {jobWith, sequential, ""},
		"a Job of a Task":                  {jobWith, `{labels: {taskflow.practice.com/task: t}, annotations: {taskflow.practice.com/steps: "x, y"}}`, ""},
		"a Job that says no":               {jobWith, `{labels: {taskflow.practice.com/sequential: "false"}}`, ""},
		"a Job without labels":             {jobWith, "", ""},
		"a Job with steps":                 {jobWith, annotated(`taskflow.practice.com/steps: "b, a,"`), ""},
		"a Job with a hand-off":            {jobWith, annotated(`taskflow.practice.com/handoff: controller, taskflow.practice.com/agent-delivery: image`), ""},
		"a CronJob":                        {cronJobWith, sequential, ""},
		"a Deployment":                     {forever("Deployment"), `{labels: {app: a}}`, ""},
		"a Deployment that says no":        {forever("Deployment"), `{labels: {app: a, taskflow.practice.com/sequential: "false"}}`, ""},
		"a wrong value":                    {jobWith, odd, `spec.template.metadata.labels: taskflow.practice.com/sequential is "yes": set it to "true", or remove it`},
		"a wrong value in a CronJob":       {cronJobWith, odd, `spec.jobTemplate.spec.template.metadata.labels: taskflow.practice.com/sequential is "yes": set it to "true", or remove it`},
		"a wrong value in a Deployment":    {forever("Deployment"), `{labels: {app: a, taskflow.practice.com/sequential: "yes"}}`, `is "yes": set it to "true", or remove it`},
		"a sequential Deployment":          {forever("Deployment"), appSequential, restarts("Deployment")},
		"a Deployment of a Task":           {forever("Deployment"), `{labels: {app: a, taskflow.practice.com/task: t}}`, restarts("Deployment")},
		"a sequential StatefulSet":         {forever("StatefulSet"), appSequential, restarts("StatefulSet")},
		"a sequential DaemonSet":           {forever("DaemonSet"), appSequential, restarts("DaemonSet")},
		"a sequential ReplicaSet":          {forever("ReplicaSet"), appSequential, restarts("ReplicaSet")},
		"an order":                         {jobWith, annotated(`taskflow.practice.com/order: "1"`), "spec.template.metadata.annotations: only taskflow sets taskflow.practice.com/order: remove it"},
		"a cancel":                         {cronJobWith, annotated(`taskflow.practice.com/cancel: Cancelled`), "spec.jobTemplate.spec.template.metadata.annotations: only taskflow sets taskflow.practice.com/cancel: remove it"},
		"two of taskflow's":                {jobWith, annotated(`taskflow.practice.com/outcome: "{}", taskflow.practice.com/halt-finally: x`), "only taskflow sets taskflow.practice.com/halt-finally, taskflow.practice.com/outcome: remove it"},
		"a Job with a list":                {jobWith, annotated(`taskflow.practice.com/steps: "- {name: a}\n- {name: b, dependsOn: []}"`), ""},
		"a Job with a list in one line":    {jobWith, annotated(`taskflow.practice.com/steps: " [a, {name: b, retries: 2}]"`), ""},
		"a Job with a list and a comment":  {jobWith, annotated(`taskflow.practice.com/steps: "# what runs\n- a"`), ""},
		"a list, and a hook beside it":     {hook, annotated(`taskflow.practice.com/steps: "- a"`), ""},
		"a hand-off that there isn't":      {jobWith, annotated(`taskflow.practice.com/handoff: local`), `taskflow.practice.com/handoff is "local": set it to controller, or remove it`},
		"a delivery that there isn't":      {cronJobWith, annotated(`taskflow.practice.com/agent-delivery: auto`), `taskflow.practice.com/agent-delivery is "auto": set it to init or image, or remove it`},
		"a step that there isn't":          {jobWith, annotated(`taskflow.practice.com/steps: "a,c"`), `taskflow.practice.com/steps names "c", and the template has no container of that name: fix the name`},
		"a hook before a step":             {hook, sequential, early},
		"a hook before a container beside": {hook, annotated(`taskflow.practice.com/steps: a`), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := filled(t, cluster, namespace, c.manifest, "", "", c.template)
			if c.want == "" && err != nil || c.want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("the error is %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestOldTemplatesCanBeEdited proves that an object from before the policy can still be changed if the keys that the policy refuses stay as
// they are. Users couldn't scale it down or remove its finalizers otherwise.
func TestOldTemplatesCanBeEdited(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	object := parse(t, strings.NewReplacer("KIND", "Deployment", "OWN", "{name: old}", "TEMPLATE",
		`{labels: {app: a, taskflow.practice.com/sequential: "true"}}`).Replace(foreverWith))
	object.SetNamespace(namespace)
	cluster.Make(t, object)
	patch := func(patch string) error {
		return cluster.Patch(t.Context(), object.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
	}
	installPolicy(t, "templates.yaml", namespace, func() error {
		return filled(t, cluster, namespace, jobWith, "", "", `{labels: {taskflow.practice.com/sequential: "yes"}}`)
	})
	if err := patch(`{"metadata":{"finalizers":["example.com/a"]},"spec":{"replicas":0}}`); err != nil {
		t.Errorf("an edit of another field: %v", err)
	}
	if err := patch(`{"spec":{"template":{"metadata":{"labels":{"taskflow.practice.com/sequential":"yes"}}}}}`); !apierrors.IsInvalid(err) {
		t.Errorf("another wrong value: %v, want a refusal", err)
	}
	if err := patch(`{"metadata":{"finalizers":null},"spec":{"template":{"metadata":{"labels":{"taskflow.practice.com/sequential":null}}}}}`); err != nil {
		t.Errorf("the label's removal: %v", err)
	}
}

// TestPriorityClassIsTheOperators proves that no Pod of another namespace can have the operator's PriorityClass, which preempts other Pods.
func TestPriorityClassIsTheOperators(t *testing.T) {
	class := parse(t, `{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: taskflow-operator}, value: 1000000000}`)
	cluster.Make(t, class)
	t.Cleanup(func() {
		if err := cluster.Delete(context.WithoutCancel(t.Context()), class); err != nil {
			t.Error(err)
		}
	})
	namespace := cluster.NewNamespace(t, "privileged")
	create := func(class string) error {
		return cluster.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pod"},
			Spec:       corev1.PodSpec{PriorityClassName: class, Containers: []corev1.Container{{Name: "a", Image: "a"}}},
		}, client.DryRunAll)
	}
	installPolicy(t, "priority.yaml", namespace, func() error { return create("taskflow-operator") })
	const want = "spec.priorityClassName: taskflow-operator is for the operator's own Pods: choose another PriorityClass"
	if err := create("taskflow-operator"); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want one with %q", err, want)
	}
	for _, class := range []string{"", "system-cluster-critical"} {
		if err := create(class); err != nil {
			t.Errorf("the class %q: %v", class, err)
		}
	}
}

// TestUnwatchedNamespacesAreRefused proves that nothing waits forever in a namespace that the operator doesn't watch: Tasks, and Jobs and
// CronJobs with steps, are refused there, and others aren't.
func TestUnwatchedNamespacesAreRefused(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	installPolicy(t, "../namespaced/unwatched.yaml", namespace, func() error { return filled(t, cluster, namespace, taskWith, "", "", "") })
	const sequential, named = `{labels: {taskflow.practice.com/sequential: "true"}}`, `{labels: {taskflow.practice.com/task: t}}`
	for name, c := range map[string]struct {
		manifest, template string
		refused            bool
	}{
		"a Task":                          {taskWith, "", true},
		"a sequential Job":                {jobWith, sequential, true},
		"a Job of a Task":                 {jobWith, named, true},
		"a sequential CronJob":            {cronJobWith, sequential, true},
		"a Job":                           {jobWith, "", false},
		"a CronJob with another label":    {cronJobWith, `{labels: {app: a}}`, false},
		"a Job that says no":              {jobWith, `{labels: {taskflow.practice.com/sequential: "false"}}`, false},
		"a Pod, which other policies see": {podWith, "", false},
	} {
		err := filled(t, cluster, namespace, c.manifest, "", "", c.template)
		want := "metadata.namespace: taskflow was installed for some namespaces, and " + namespace + " is not one of them: create the "
		if refused := apierrors.IsForbidden(err) && strings.Contains(err.Error(), want); refused != c.refused || !refused && err != nil {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}
