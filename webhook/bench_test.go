package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// BenchmarkWebhook measures one answer to the API server, without the connection, for a Pod whose steps have commands. It fails if the cost of a
// container grows with their number: a container of 100 may cost at most twice as much as one of 10.
func BenchmarkWebhook(b *testing.B) {
	each := map[int]float64{} // nanoseconds for one container
	for _, count := range []int{1, 3, 10, 50, 100} {
		b.Run(fmt.Sprintf("containers=%d", count), func(b *testing.B) {
			handler := &ctrlwebhook.Admission{Handler: Handler{Operator: operator, Agent: podspec.Agent{Image: "taskflow/agent"}}}
			body := review(b, count)
			b.ReportAllocs()
			for b.Loop() {
				request := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/mutate-pods", bytes.NewReader(body))
				request.Header.Set("Content-Type", "application/json")
				answer := httptest.NewRecorder()
				handler.ServeHTTP(answer, request)
				if !bytes.Contains(answer.Body.Bytes(), []byte(`"patch":`)) {
					b.Fatalf("the answer has no patch: %s", answer.Body)
				}
			}
			each[count] = float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(count)
		})
	}
	if ten, hundred := each[10], each[100]; ten > 0 && hundred > 2*ten {
		b.Errorf("one container of 100 costs %.0f ns, and one of 10 costs %.0f", hundred, ten)
	}
}

// review returns the request of the API server for a Pod with count containers.
func review(b *testing.B, count int) []byte {
	b.Helper()
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "bench", Namespace: "bench", Labels: map[string]string{contract.SequentialLabel: "true"}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever},
	}
	for i := range count {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: fmt.Sprintf("step%d", i+1), Image: "busybox:1.28", Command: []string{"sh", "-c"}, Args: []string{"echo hello"},
		})
	}
	raw, err := json.Marshal(pod)
	if err != nil {
		b.Fatal(err)
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "bench", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: "bench", Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw},
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	return body
}
