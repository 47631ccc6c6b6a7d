package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestBounds proves that no Pod and no Task takes long to answer, or makes a large answer: one beyond the bounds is refused with a sentence, and
// the largest within them takes a small part of the deadline. Before there were bounds, two containers of 20,000 mounts took three and a half
// minutes.
func TestBounds(t *testing.T) {
	// The slowest takes 0.1 s on two idle cores, 7 s on busy ones with the race detector, and took minutes without the bounds.
	const patience = time.Minute
	steps := func(count int, edit func(i int, c *corev1.Container)) []corev1.Container {
		var all []corev1.Container
		for i := range count {
			container := step(fmt.Sprintf("s%d", i))
			if edit != nil {
				edit(i, &container)
			}
			all = append(all, container)
		}
		return all
	}
	mounts := func(count int) func(int, *corev1.Container) {
		return func(i int, c *corev1.Container) {
			c.WorkingDir = fmt.Sprintf("/%d/0/below", i)
			for m := range count {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "v0", MountPath: fmt.Sprintf("/%d/%d", i, m), SubPath: fmt.Sprintf("d/%d", m)})
			}
		}
	}
	deep := func(length int) func(int, *corev1.Container) {
		return func(i int, c *corev1.Container) {
			for m := range 10 {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "v0", MountPath: fmt.Sprintf("/%d/%d", i, m), SubPath: strings.Repeat("a/", length/2)})
			}
		}
	}
	volumes := func(count int) []corev1.Volume {
		var all []corev1.Volume
		for i := range count {
			all = append(all, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		}
		return all
	}
	pod := func(containers []corev1.Container, volumes []corev1.Volume) *corev1.Pod {
		pod := taskPod(containers...)
		pod.Spec.Volumes = volumes
		return pod
	}
	naming := func(pod *corev1.Pod, steps string) *corev1.Pod {
		pod.OwnerReferences = nil
		pod.Labels = map[string]string{contract.TaskLabel: "task"}
		pod.Annotations = map[string]string{"kubernetes.io/limit-ranger": strings.Repeat("a; ", 80000)}
		if steps != "" {
			pod.Annotations[contract.StepsAnnotation] = steps
		}
		return pod
	}
	task := func(count, volumeCount int) *v1alpha1.Task {
		task := &v1alpha1.Task{}
		task.Name = "task"
		for i := range count {
			task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: step(fmt.Sprintf("s%d", i))})
		}
		task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Volumes: volumes(volumeCount)}}
		return task
	}
	for name, c := range map[string]struct {
		pod     *corev1.Pod
		task    *v1alpha1.Task
		refused string
	}{
		"containers":                {pod: pod(steps(maxContainers, nil), nil)},
		"too many containers":       {pod: pod(steps(20*maxContainers, nil), nil), refused: "spec.containers: the Pod has 20000 containers, and a Pod with steps may have 1000: split it into several Tasks"},
		"mounts":                    {pod: pod(steps(maxMounts/maxOwnMounts, mounts(maxOwnMounts)), volumes(maxVolumes))},
		"too many mounts":           {pod: pod(steps(1000, mounts(11)), nil), refused: "spec.containers: the Pod has 11000 volumeMounts, and a Pod with steps may have 10000: mount directories above them"},
		"too many mounts of one":    {pod: pod(steps(2, mounts(20000)), nil), refused: `the container "s0" has 20000 volumeMounts, and a container may have 250: mount a directory above them`},
		"too many volumes":          {pod: pod(steps(2, nil), volumes(20000)), refused: "spec.volumes: the Pod has 20000 volumes, and a Pod with steps may have 1000: mount fewer"},
		"long paths":                {pod: pod(steps(100, deep(maxPath)), volumes(1))},
		"too long a path":           {pod: pod(steps(1, deep(1<<20)), volumes(1)), refused: `the container "s0" has a mountPath, subPath or workingDir of more than 1024 bytes: use a shorter path`},
		"a Task":                    {pod: naming(pod(steps(maxContainers, nil), volumes(maxVolumes/2)), ""), task: task(maxContainers, maxVolumes/2)},
		"too large a Task":          {pod: naming(pod(steps(1, nil), nil), ""), task: task(20000, 0), refused: `the Task "task" has 20000 steps and sidecars and 0 volumes, and there may be 1000 and 1000: split it into several Tasks`},
		"too many names of steps":   {pod: naming(pod(steps(1, nil), nil), strings.Repeat("a,", 100000)), task: task(1000, 0), refused: "metadata.annotations: taskflow.practice.com/steps names 100000 steps, and there may be 1000: split the Pod into several Tasks"},
		"no steps, many containers": {pod: &corev1.Pod{Spec: corev1.PodSpec{Containers: steps(2000, nil)}}},
	} {
		t.Run(name, func(t *testing.T) {
			raw := encode(t, c.pod)
			var known []*v1alpha1.Task
			if c.task != nil {
				known = append(known, c.task)
			}
			began := time.Now()
			response := handle(t, raw, known...)
			if took := time.Since(began); took > patience {
				t.Errorf("the answer took %s", took)
			}
			if len(response.Patch) > maxPatch {
				t.Errorf("the patch has %d bytes", len(response.Patch))
			}
			if diff := cmp.Diff(c.refused, response.Result.Message); diff != "" {
				t.Errorf("the refusal (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBoundedReview proves that a review which is too large isn't read, and is refused in a way that the API server tells the user; and that one
// that doesn't say how large it is isn't read to its end.
func TestBoundedReview(t *testing.T) {
	handler := Bounded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	const head = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"kind":{"group":"","version":"v1","kind":"Pod"},"uid":"7","object":"`
	for name, c := range map[string]struct {
		head   string
		length int64 // 0 is that of the body, -1 isn't told
		size   int
		code   int
		read   int // at most
		uid    string
	}{
		"small":                {head: head, size: 1 << 10, code: http.StatusOK, read: 1 << 20},
		"as large as may be":   {head: head, size: maxReview - len(head), code: http.StatusOK, read: maxReview},
		"too large":            {head: head, size: maxReview, code: http.StatusOK, read: maxHead, uid: "7"},
		"too large, no review": {head: `{"kind":"`, size: maxReview, code: http.StatusRequestEntityTooLarge, read: maxHead},
		"too large, no JSON":   {head: `x`, size: maxReview, code: http.StatusRequestEntityTooLarge, read: maxHead},
		"without a length":     {head: head, length: -1, size: 2 * maxReview, code: http.StatusBadRequest, read: maxReview + 64<<10},
	} {
		t.Run(name, func(t *testing.T) {
			body := &counted{Reader: io.MultiReader(strings.NewReader(c.head), io.LimitReader(endless{}, int64(c.size)))}
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
			request.ContentLength = int64(len(c.head) + c.size)
			if c.length < 0 {
				request.ContentLength = -1
			}
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, request)
			if answer.Code != c.code || body.read > c.read {
				t.Errorf("the code is %d after %d bytes were read, want %d after at most %d: %s", answer.Code, body.read, c.code, c.read, answer.Body)
			}
			if c.uid == "" {
				return
			}
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil {
				t.Fatal(err)
			}
			if string(review.Response.UID) != c.uid || review.Response.Allowed || !strings.HasPrefix(review.Response.Result.Message, "the Pod has ") {
				t.Errorf("the answer is %s", answer.Body)
			}
		})
	}
}

type counted struct {
	io.Reader
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

// endless is text without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// TestLargeReviewsTakeTurns proves that few large reviews are worked on at the same time, and that a small one doesn't wait for them.
func TestLargeReviewsTakeTurns(t *testing.T) {
	const clients = 10
	let := make(chan struct{})
	var working, most, done atomic.Int32
	handler := Bounded(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.ContentLength > lightReview {
			now := working.Add(1)
			defer working.Add(-1)
			most.Store(max(most.Load(), now))
			<-let
		}
		done.Add(1)
	}))
	send := func(size int64) {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
		request.ContentLength = size
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	var sent sync.WaitGroup
	for range clients {
		sent.Go(func() { send(lightReview + 1) })
	}
	wait.For(t, "the first large reviews", func(context.Context) error {
		if now := working.Load(); now < heavyReviews {
			return fmt.Errorf("%d are worked on", now)
		}
		return nil
	})
	send(lightReview)
	close(let)
	sent.Wait()
	if most.Load() > heavyReviews || done.Load() != clients+1 {
		t.Errorf("%d large reviews were worked on at the same time, and %d reviews in all", most.Load(), done.Load())
	}
}

// TestLargeTasksTakeTurns proves that a Pod waits for its turn if the cache doesn't have the spec of the Task that it names, that it is refused
// with a sentence if that doesn't come, and that the turn is given back.
func TestLargeTasksTakeTurns(t *testing.T) {
	task := readTask(t, build)
	limit := NewLargeTasks()
	handler := Handler{Agent: testAgent, Tasks: tasks{}, Live: tasks{task}, Commands: &commands{}, LargeTasks: limit}
	request := requestFor([]byte(naming(placeholder)))
	if err := limit.Acquire(t.Context(), request.Namespace); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	const busy = "the webhook is busy with other Pods that name large Tasks: create the Pod again"
	if response := handler.Handle(ctx, request); response.Allowed || response.Result.Message != busy {
		t.Errorf("while another Pod has the turn, the answer is %+v", response)
	}
	limit.Release(request.Namespace)
	for range 2 {
		if response := handler.Handle(t.Context(), request); !response.Allowed {
			t.Errorf("afterwards, the answer is %+v", response.Result)
		}
	}
}
