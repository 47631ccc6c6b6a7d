package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/bench/report"
	"github.com/taskflow/taskflow-operator/test/inotify"
)

// hopKind describes Pods whose hops are measured. A hop is the time from the end of a step's command to the start of the next command.
type hopKind struct {
	name        string
	pods, steps int
	length      string // how long each step sleeps; empty: it only prints the clock
	annotations map[string]string
	cpu         string // request of each step; empty: none
	noInotify   bool   // the steps' user has no inotify instances left
	oneShell    bool   // the commands run one after another in a shell, without taskflow
}

// allUp returns the length of the first step in seconds: longer than the kubelet takes to start all containers of a Pod with so many steps.
// Otherwise the kubelet would be measured, which starts containers one after another.
func allUp(steps int) string { return strconv.Itoa(4 + steps/6) }

// lonelyUser is a UID that no other process uses, so that all of its inotify instances can be taken.
const lonelyUser = 45679

// look prints the clock. The variable is built into busybox's shell, so that no other process has to start for it.
const look = "echo $EPOCHREALTIME"

// hops runs the Pods of a kind, and returns the hops of all.
func (b *bench) hops(ctx context.Context, kind hopKind) ([]time.Duration, error) {
	if kind.noInotify {
		release, err := inotify.Exhaust(lonelyUser)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	var hops []time.Duration
	for range kind.pods {
		var ofPod []time.Duration
		_, err := b.run(ctx,
			kind.object,
			func(pod *corev1.Pod) (err error) {
				ofPod, err = b.readHops(ctx, kind, pod)
				return err
			})
		if err != nil {
			return nil, fmt.Errorf("hops, %s: %w", kind.name, err)
		}
		fmt.Fprintf(os.Stderr, "hops, %s: median %s, greatest %s\n", kind.name, report.Quantile(ofPod, 0.5), report.Quantile(ofPod, 1))
		hops = append(hops, ofPod...)
	}
	return hops, nil
}

// object returns a Task, or a Pod with one container if k.oneShell is set.
func (k hopKind) object(meta metav1.ObjectMeta) client.Object {
	if k.oneShell {
		return pod(meta, nil, []corev1.Container{container(0, strings.Repeat(k.inShell()+"; ", k.steps))})
	}
	t := task(meta, work{steps: k.steps}, k.annotations)
	for i := range t.Spec.Steps {
		t.Spec.Steps[i].Command = []string{"sh", "-c", k.script(i)}
		if k.cpu != "" {
			t.Spec.Steps[i].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(k.cpu)}
		}
	}
	if k.noInotify {
		t.Spec.Template.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(lonelyUser)), RunAsGroup: new(int64(lonelyUser))}
	}
	return t
}

// inShell returns the shell command that does the same as a step. It is a separate process, unless it only prints the clock.
func (k hopKind) inShell() string {
	if k.length == "" {
		return look
	}
	return "sh -c '" + k.script(1) + "'"
}

// script returns the script of a step. Each step but the first prints the clock equally often.
func (k hopKind) script(step int) string {
	length := k.length
	if step == 0 {
		length = allUp(k.steps)
	}
	if length == "" {
		return look
	}
	return look + "; sleep " + length + "; " + look
}

// readHops returns the times between the last clock reading of each step and the first one of the next step.
func (b *bench) readHops(ctx context.Context, kind hopKind, pod *corev1.Pod) ([]time.Duration, error) {
	var hops []time.Duration
	var last time.Time
	looksOfOne := strings.Count(kind.script(1), look)
	steps := pod.Annotations[contract.StepsAnnotation]
	if kind.oneShell {
		steps = pod.Spec.Containers[0].Name
	}
	for _, step := range contract.ParseSteps(steps) {
		log, err := b.clientset.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: step}).DoRaw(ctx)
		if err != nil {
			return nil, err
		}
		looks, err := parseLooks(string(log))
		if err != nil {
			return nil, fmt.Errorf("log of %s: %w", step, err)
		}
		for i, at := range looks {
			if !last.IsZero() && (i == 0 || kind.oneShell && i%looksOfOne == 0) {
				hops = append(hops, at.Sub(last))
			}
			last = at
		}
	}
	return hops, nil
}

// clock matches the value of $EPOCHREALTIME: seconds with six decimals.
var clock = regexp.MustCompile(`(?m)^\d+\.\d{6}$`)

func parseLooks(log string) ([]time.Time, error) {
	var looks []time.Time
	for _, seconds := range clock.FindAllString(log, -1) {
		sinceEpoch, err := time.ParseDuration(seconds + "s")
		if err != nil {
			return nil, err
		}
		looks = append(looks, time.Unix(0, sinceEpoch.Nanoseconds()))
	}
	if len(looks) == 0 {
		return nil, fmt.Errorf("no clock reading in %q", log)
	}
	return looks, nil
}
