package entrypoint_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestMetrics proves that each look-up is counted by its result and duration, and each cache request by its outcome.
func TestMetrics(t *testing.T) {
	host := serve(t, newRegistry())
	push(t, host+"/app:v1", dockerImage(t, "linux/amd64", app))
	resolver := newResolver(t, entrypoint.Options{})
	before := gather(t)
	for _, image := range []string{host + "/app:v1", host + "/app:v1", host + "/app:v2", "NOT/VALID"} {
		resolve(t, resolver, entrypoint.Request{Image: image})
	}
	got := gather(t)
	for name := range got {
		if got[name] -= before[name]; got[name] == 0 {
			delete(got, name)
		}
	}
	want := map[string]float64{
		"taskflow_image_lookups_total Found":               2,
		"taskflow_image_lookups_total NotFound":            1,
		"taskflow_image_lookups_total InvalidName":         1,
		"taskflow_image_lookup_duration_seconds":           4,
		"taskflow_image_cache_requests_total digest miss":  2,
		"taskflow_image_cache_requests_total digest hit":   1,
		"taskflow_image_cache_requests_total command miss": 1,
		"taskflow_image_cache_requests_total command hit":  1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what has been counted (-want +got):\n%s", diff)
	}
}

// gather returns taskflow's counters, and the counts of its histograms, by name and labels.
func gather(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			if !strings.HasPrefix(name, "taskflow_") {
				continue
			}
			for _, label := range metric.GetLabel() {
				name = strings.Join([]string{name, label.GetValue()}, " ")
			}
			all[name] = metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return all
}
