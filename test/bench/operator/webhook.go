package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/bench/operator/standin"
	"github.com/taskflow/taskflow-operator/test/bench/report"
)

// review returns the request of the API server to the webhook for a Pod of so many containers.
func review(containerCount int) ([]byte, error) {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "bench", Namespace: taskNamespace, Labels: map[string]string{contract.SequentialLabel: "true"}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever},
	}
	for i := range containerCount {
		p.Spec.Containers = append(p.Spec.Containers, stepContainer(i))
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID:       types.UID("bench"),
			Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: taskNamespace,
			Operation: admissionv1.Create,
			Object:    runtime.RawExtension{Raw: raw},
		},
	})
}

// reviews are the requests to the webhook in one round.
type reviews struct {
	times []time.Duration // of the answers
	took  time.Duration
	cpu   time.Duration // of the operator
	// stolen is the time for which a CPU had something to do and the hypervisor ran something else.
	stolen time.Duration
}

const reviewsPerSecond = 200

// podSizes are the numbers of containers of the Pods in the requests.
var podSizes = []int{3, 50}

// webhook measures the answers of an operator on one core. It returns the rounds by the number of the Pod's containers.
func (b *bench) webhook(ctx context.Context) (all map[int][]reviews, err error) {
	o, err := b.cluster.startOperator(ctx, b.program, "GOMAXPROCS=1")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.end()) }()
	transport := standin.WebhookTransport()
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	bodies := map[int][]byte{}
	for _, count := range podSizes {
		if bodies[count], err = review(count); err != nil {
			return nil, err
		}
	}
	all = map[int][]reviews{}
	for range b.plan.rounds {
		for _, count := range podSizes {
			asked, err := b.round(ctx, client, o, bodies[count])
			if err != nil {
				return nil, err
			}
			all[count] = append(all[count], asked)
		}
	}
	for _, count := range podSizes {
		fmt.Fprintf(os.Stderr, "webhook, %d containers: p99 %s\n", count, spread(quantiles(all[count], 0.99)))
	}
	return all, nil
}

func (b *bench) round(ctx context.Context, client *http.Client, o *operator, body []byte) (reviews, error) {
	var r reviews
	usedBefore, err := o.cpu()
	if err != nil {
		return r, err
	}
	stolenBefore, err := stolen()
	if err != nil {
		return r, err
	}
	began := time.Now()
	if r.times, err = load(ctx, client, o.webhook, body, b.plan.load); err != nil {
		return r, err
	}
	r.took = time.Since(began)
	stolenAfter, err := stolen()
	if err != nil {
		return r, err
	}
	usedAfter, err := o.cpu()
	r.cpu, r.stolen = usedAfter-usedBefore, stolenAfter-stolenBefore
	return r, err
}

// quietest returns the half of the rounds with the least stolen time.
func quietest(rounds []reviews) []reviews {
	byTheft := slices.SortedStableFunc(slices.Values(rounds), func(a, b reviews) int { return cmp.Compare(a.stolen, b.stolen) })
	return byTheft[:(len(rounds)+1)/2]
}

// quantiles returns a quantile of each round.
func quantiles(rounds []reviews, q float64) []time.Duration {
	all := make([]time.Duration, len(rounds))
	for i, r := range rounds {
		all[i] = report.Quantile(r.times, q)
	}
	return all
}

// total returns the sum of all rounds.
func total(rounds []reviews) reviews {
	var sum reviews
	for _, r := range rounds {
		sum.times = append(sum.times, r.times...)
		sum.took += r.took
		sum.cpu += r.cpu
		sum.stolen += r.stolen
	}
	return sum
}

func (r reviews) perSecond() float64 { return float64(len(r.times)) / r.took.Seconds() }

// load sends requests at a steady rate, regardless of earlier answers, and returns how long each answer took.
func load(ctx context.Context, client *http.Client, address string, body []byte, length time.Duration) ([]time.Duration, error) {
	ask := func() error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err == nil && !strings.Contains(string(answer), `"patch":`) {
			err = fmt.Errorf("the webhook answers without a patch: %s", answer)
		}
		return err
	}
	if err := ask(); err != nil { // the first request may open the connection
		return nil, err
	}

	var mutex sync.Mutex
	var group sync.WaitGroup
	var times []time.Duration
	var failure error
	began := time.Now()
	for i := range int(length.Seconds() * reviewsPerSecond) {
		due := began.Add(time.Duration(i) * time.Second / reviewsPerSecond)
		sleepUntil(due)
		group.Go(func() {
			err := ask()
			took := time.Since(due)
			mutex.Lock()
			defer mutex.Unlock()
			times = append(times, took)
			failure = errors.Join(failure, err)
		})
	}
	group.Wait()
	return times, failure
}

// sleepUntil sleeps by the kernel's own clock. Go's timers are late by up to a millisecond, because the runtime waits for them with
// epoll_wait, which counts whole milliseconds.
func sleepUntil(due time.Time) {
	for left := time.Until(due); left > 0; left = time.Until(due) {
		length := unix.NsecToTimespec(left.Nanoseconds())
		_ = unix.Nanosleep(&length, nil) // any signal ends it early, for example one of the Go runtime
	}
}
