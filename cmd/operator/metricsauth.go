package main

import (
	"context"
	"crypto/sha256"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/lru"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/taskflow/taskflow-operator/internal/fair"
)

// These bound what requests for metrics cost the API server, and how much requests with bad tokens delay those with good ones.
const (
	// A good token is reviewed again after a minute. For an hour it does not wait in the queue of unknown tokens.
	goodFor       = time.Minute
	rememberedFor = time.Hour
	// A bad token is not reviewed again within this time.
	badFor = 10 * time.Second

	goodTokens, badTokens = 100, 1000

	reviewsPerSecond = 20
	reviewsAtOnce    = 8
	// reviewPatience bounds how long a request waits for its turn and for the API server.
	reviewPatience = 10 * time.Second
	// maxToken is far above the size of a token.
	maxToken = 16 << 10
)

// verdict is the API server's review of a token: code is http.StatusOK if its owner may read the metrics.
type verdict struct {
	code    int
	message string
	asked   time.Time
}

// reviewer asks the API server about the token of a request.
type reviewer func(ctx context.Context, token string, r *http.Request) (verdict, error)

// metricsGuard serves the metrics only to clients whose bearer token the API server authenticates and authorizes for /metrics. Clients with
// bad tokens cannot delay others: addresses take turns, and tokens that were good have a queue of their own. (controller-runtime's filter
// does neither, and links 20 MB of the API server's code.)
type metricsGuard struct {
	log logr.Logger
	now func() time.Time
	// unknown and remembered each have a client with a rate limit of its own.
	unknown, remembered           reviewer
	unknownTurns, rememberedTurns *fair.Limiter
	good, bad                     *lru.Cache // verdicts by the token's hash
}

func newMetricsGuard(m manager.Manager) (*metricsGuard, error) {
	unknown, err := newReviewer(m)
	if err != nil {
		return nil, err
	}
	remembered, err := newReviewer(m)
	return guardWith(unknown, remembered, ctrl.Log.WithName("metrics")), err
}

func guardWith(unknown, remembered reviewer, log logr.Logger) *metricsGuard {
	return &metricsGuard{
		log: log, now: time.Now,
		unknown: unknown, remembered: remembered,
		unknownTurns: fair.NewLimiter(reviewsAtOnce, 1), rememberedTurns: fair.NewLimiter(reviewsAtOnce, 1),
		good: lru.New(goodTokens), bad: lru.New(badTokens),
	}
}

// protect returns the handler behind the guard.
func (g *metricsGuard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || token == "" || len(token) > maxToken {
			http.Error(w, "Unauthorized: send a bearer token", http.StatusUnauthorized)
			return
		}
		v := g.ask(token, r)
		if v.code != http.StatusOK {
			if v.code == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "5")
			}
			http.Error(w, v.message, v.code)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ask returns the verdict on a token, cached or new.
func (g *metricsGuard) ask(token string, r *http.Request) verdict {
	key := sha256.Sum256([]byte(r.Method + " " + r.URL.Path + " " + token))
	v, known, wasGood := g.recall(key)
	if known {
		return v
	}
	ask, turns := g.unknown, g.unknownTurns
	if wasGood {
		ask, turns = g.remembered, g.rememberedTurns
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewPatience)
	defer cancel()
	address, _, _ := net.SplitHostPort(r.RemoteAddr) // net/http sets it so
	if err := turns.Acquire(ctx, address); err != nil {
		return verdict{code: http.StatusTooManyRequests, message: "Too Many Requests: too many requests with unknown tokens; try again"}
	}
	defer turns.Release(address)
	if v, known, _ := g.recall(key); known { // another request has asked in the meantime
		return v
	}
	v, err := ask(ctx, token, r)
	if err != nil {
		g.log.Error(err, "Cannot review a token")
		return verdict{code: http.StatusInternalServerError, message: "Internal Server Error"}
	}
	v.asked = g.now()
	if v.code == http.StatusOK {
		g.good.Add(key, v)
	} else {
		g.good.Remove(key)
		g.bad.Add(key, v)
	}
	return v
}

// recall returns the cached verdict on a token, whether it is still valid, and whether the token was good within the last hour.
func (g *metricsGuard) recall(key [sha256.Size]byte) (v verdict, known, wasGood bool) {
	if value, ok := g.good.Get(key); ok {
		v = value.(verdict)
		age := g.now().Sub(v.asked)
		return v, age < goodFor, age < rememberedFor
	}
	value, _ := g.bad.Get(key)
	v, known = value.(verdict)
	return v, known && g.now().Sub(v.asked) < badFor, false
}

func newReviewer(m manager.Manager) (reviewer, error) {
	config := rest.CopyConfig(m.GetConfig())
	config.QPS, config.Burst = reviewsPerSecond, 2*reviewsPerSecond
	api, err := client.New(config, client.Options{HTTPClient: m.GetHTTPClient(), Scheme: m.GetScheme(), Mapper: m.GetRESTMapper()})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, token string, r *http.Request) (verdict, error) {
		known := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
		if err := api.Create(ctx, known); err != nil {
			return verdict{}, err
		}
		if !known.Status.Authenticated {
			return verdict{code: http.StatusUnauthorized, message: "Unauthorized: the API server does not know this token"}, nil
		}
		allowed := &authorizationv1.SubjectAccessReview{Spec: accessTo(r, known.Status.User)}
		if err := api.Create(ctx, allowed); err != nil {
			return verdict{}, err
		}
		if !allowed.Status.Allowed {
			return verdict{code: http.StatusForbidden, message: "Forbidden: bind the ClusterRole taskflow-metrics-reader to " + known.Status.User.Username}, nil
		}
		return verdict{code: http.StatusOK}, nil
	}, nil
}

func accessTo(r *http.Request, user authenticationv1.UserInfo) authorizationv1.SubjectAccessReviewSpec {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, value := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(value)
	}
	return authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: r.URL.Path, Verb: strings.ToLower(r.Method)},
	}
}
