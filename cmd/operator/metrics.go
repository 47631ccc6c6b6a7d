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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/lru"

	"github.com/taskflow/taskflow-operator/internal/fair"
)

// The bounds of what requests for metrics cost the API server, and of what others' requests cost the one that has a good token.
const (
	// A good token is asked for again after a minute, and for an hour that is not in the queue of unknown ones.
	goodFor       = time.Minute
	rememberedFor = time.Hour
	// A wrong token isn't asked for again so soon.
	badFor = 10 * time.Second

	goodTokens, badTokens = 100, 1000

	reviewsPerSecond = 20
	reviewsAtOnce    = 8
	// reviewPatience bounds how long a request waits for its turn and for the API server.
	reviewPatience = 10 * time.Second
	// maxToken is far above what a token has.
	maxToken = 16 << 10
)

// verdict is what the API server says of a token: code is http.StatusOK if its owner may read the metrics.
type verdict struct {
	code    int
	message string
	asked   time.Time
}

// reviewer asks the API server about the token of a request.
type reviewer func(ctx context.Context, token string, r *http.Request) (verdict, error)

// metricsGuard lets those read the metrics whom the API server knows by their bearer token and who may get /metrics. Whoever sends wrong tokens
// doesn't keep others waiting: addresses take turns, and a token that was good has a queue of its own.
// (controller-runtime's own filter links 20 MB of the API server's code, and has neither.)
type metricsGuard struct {
	log logr.Logger
	now func() time.Time
	// unknown and remembered have a client with a bound of its own each.
	unknown, remembered           reviewer
	unknownTurns, rememberedTurns *fair.Limiter
	good, bad                     *lru.Cache // verdicts by the token's hash
}

func newMetricsGuard(config *rest.Config, client *http.Client, log logr.Logger) (*metricsGuard, error) {
	unknown, err := newReviewer(config, client)
	if err != nil {
		return nil, err
	}
	remembered, err := newReviewer(config, client)
	if err != nil {
		return nil, err
	}
	return guardWith(unknown, remembered, log), nil
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

// ask returns what the API server says of a token, or has said a moment ago.
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
	address := addressOf(r)
	if err := turns.Acquire(ctx, address); err != nil {
		return verdict{code: http.StatusTooManyRequests, message: "Too Many Requests: many requests with unknown tokens wait; try again"}
	}
	defer turns.Release(address)
	if v, known, _ := g.recall(key); known { // another request has asked meanwhile
		return v
	}
	v, err := ask(ctx, token, r)
	if err != nil {
		g.log.Error(err, "Can't find out what the owner of a token may do")
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

// recall returns what the API server said of a token a moment ago, if it did, and whether it was good not long ago.
func (g *metricsGuard) recall(key [sha256.Size]byte) (v verdict, known, wasGood bool) {
	if v, ok := get(g.good, key); ok {
		age := g.now().Sub(v.asked)
		return v, age < goodFor, age < rememberedFor
	}
	v, ok := get(g.bad, key)
	return v, ok && g.now().Sub(v.asked) < badFor, false
}

func get(cache *lru.Cache, key [sha256.Size]byte) (verdict, bool) {
	value, ok := cache.Get(key)
	if !ok {
		return verdict{}, false
	}
	v, ok := value.(verdict)
	return v, ok
}

func addressOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

func newReviewer(config *rest.Config, client *http.Client) (reviewer, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = reviewsPerSecond, 2*reviewsPerSecond
	authentication, err := authenticationclient.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, err
	}
	authorization, err := authorizationclient.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, token string, r *http.Request) (verdict, error) {
		known, err := authentication.TokenReviews().Create(ctx,
			&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		if err != nil {
			return verdict{}, err
		}
		if !known.Status.Authenticated {
			return verdict{code: http.StatusUnauthorized, message: "Unauthorized: the API server doesn't know this token"}, nil
		}
		allowed, err := authorization.SubjectAccessReviews().Create(ctx,
			&authorizationv1.SubjectAccessReview{Spec: accessTo(r, known.Status.User)}, metav1.CreateOptions{})
		if err != nil {
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
