package entrypoint

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	lookups = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "taskflow_image_lookups_total",
		Help: "Look-ups of image commands by result: Found, Cancelled, or the reason of the failure.",
	}, []string{"result"})
	lookupSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "taskflow_image_lookup_duration_seconds",
		Help:    "Duration of look-ups of image commands.",
		Buckets: []float64{.0001, .001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
	cacheHits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "taskflow_image_cache_requests_total",
		Help: "Cache requests by cache (digest: the digest of a tag for given credentials; command: the command of a digest) and outcome (hit or miss).",
	}, []string{"cache", "outcome"})
)

func init() {
	metrics.Registry.MustRegister(lookups, lookupSeconds, cacheHits)
}

func count(err error, took time.Duration) {
	result := "Found"
	if failed, ok := errors.AsType[*Error](err); ok {
		result = failed.Reason
	} else if err != nil {
		result = "Cancelled"
	}
	lookups.WithLabelValues(result).Inc()
	lookupSeconds.Observe(took.Seconds())
}
