package main

import (
	"net/http"
	"strings"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// reviewsPerSecond bounds what requests with wrong tokens cost the API server.
const reviewsPerSecond = 5

// metricsFilter lets those read the metrics whom the API server knows by their bearer token and who may get /metrics.
// controller-runtime's own filter does the same with the API server's code: 20 MB in the binary, for a cache that a
// scrape every few seconds doesn't need.
func metricsFilter(config *rest.Config, client *http.Client) (metricsserver.Filter, error) {
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
	return func(log logr.Logger, metrics http.Handler) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				http.Error(w, "Unauthorized: send a bearer token", http.StatusUnauthorized)
				return
			}
			known, err := authentication.TokenReviews().Create(r.Context(),
				&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
			if err != nil {
				log.Error(err, "Can't find out whose token it is")
				http.Error(w, "Internal Server Error", http.StatusInternalServerError)
				return
			}
			if !known.Status.Authenticated {
				http.Error(w, "Unauthorized: the API server doesn't know this token", http.StatusUnauthorized)
				return
			}
			allowed, err := authorization.SubjectAccessReviews().Create(r.Context(),
				&authorizationv1.SubjectAccessReview{Spec: accessTo(r, known.Status.User)}, metav1.CreateOptions{})
			if err != nil {
				log.Error(err, "Can't find out what the user may do", "user", known.Status.User.Username)
				http.Error(w, "Internal Server Error", http.StatusInternalServerError)
				return
			}
			if !allowed.Status.Allowed {
				http.Error(w, "Forbidden: bind the ClusterRole taskflow-metrics-reader to "+known.Status.User.Username, http.StatusForbidden)
				return
			}
			metrics.ServeHTTP(w, r)
		}), nil
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
