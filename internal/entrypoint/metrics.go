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
		Help: "Look-ups of the command of an image, by result: Found, Cancelled, or why there is none.",
	}, []string{"result"})
	lookupSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "taskflow_image_lookup_duration_seconds",
		Help:    "How long look-ups of the command of an image took.",
		Buckets: []float64{.0001, .001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
	cacheHits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "taskflow_image_cache_requests_total",
		Help: "Questions to the caches (digest: which digest a tag has for somebody; command: which command a digest stands for), by outcome: hit or miss.",
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
