package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/taskflow/taskflow-operator/contract"
)

// review is what the API server asks the webhook for a Pod of so many containers.
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

// load sends reviews at a steady rate, whether or not the ones before are answered, and returns how long each answer took.
func load(ctx context.Context, address string, body []byte, perSecond int, length time.Duration) ([]time.Duration, error) {
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it is the time that matters
		MaxIdleConnsPerHost: perSecond,
		ForceAttemptHTTP2:   true, // as the API server does
	}
	defer transport.CloseIdleConnections()
	httpClient := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	ask := func() error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := httpClient.Do(request)
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
	if err := ask(); err != nil { // and opens the connection
		return nil, err
	}

	var mutex sync.Mutex
	var group sync.WaitGroup
	var times []time.Duration
	var failure error
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	for range int(length.Seconds() * float64(perSecond)) {
		due := <-ticker.C
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
