// Package standin replaces the API server for measurements of the operator at a hundred Tasks a second. For a Task, a real API server takes
// about eight times the operator's CPU, so that a few cores leave the operator too little. Two goals of docs/benchmarks.md depend on it:
// the Tasks that end each second, and the operator's CPU for a Task with 10,000 live Tasks.
package standin

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// Server keeps Tasks and their Pods in memory, calls the webhook for each Pod, and plays the kubelets (kubelet.go). The operator sends and
// receives the same as with a real API server: the same encodings and protocol, with the fields that a real one adds, copied from the
// sample. The Server answers the operator's calls for running Tasks, and checks only versions and JSON patches. It forwards all other calls
// to the real API server.
//
// The Server starts empty, and its watches report only later changes: the operator must run before the first Task is created.
type Server struct {
	sample  Sample
	client  http.Client // for the webhook
	server  http.Server
	address string
	ca      []byte
	done    chan Task

	mutex     sync.Mutex
	webhook   string    // its address
	admission admission // the latest
	version   int64
	tasks     map[string]*storedTask
	pods      map[string]*corev1.Pod
	calls     map[string]float64

	taskEvents, podEvents *events
}

// Sample is a Task and its Pod, as a real API server has them after their end. All Tasks of the Server are like it.
type Sample struct {
	Task v1alpha1.Task
	Pod  corev1.Pod
}

// Task reports that a Task reached its phase, or why it didn't.
type Task struct {
	Name string
	Err  error // why it didn't
	At   time.Time
	// Lag is the operator's share of the time until the end: from the creation of the Task to the creation of the Pod, and from the end of
	// the last step to the end of the Task.
	Lag time.Duration
}

type storedTask struct {
	head, tail []byte // the JSON without the status, before and after the version
	version    string
	status     map[string]json.RawMessage
	until      v1alpha1.TaskPhase
	pod        string

	created, podCreated, stepsOver time.Time
}

// WebhookTransport returns a transport like the one of an API server that calls a webhook through a Service: HTTP/1.1, so that several
// replicas share the calls (k8s.io/apiserver, pkg/util/webhook/client.go), and as many idle connections (client-go, transport/cache.go).
func WebhookTransport() *http.Transport {
	return &http.Transport{
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}, //nolint:gosec // only the time matters
		MaxIdleConnsPerHost: 25,
	}
}

// Start serves on an address of this machine until Close. It forwards all calls that it doesn't know to origin, the real API server. The
// channel of Done buffers up to capacity Tasks.
func Start(origin *rest.Config, sample Sample, capacity int) (*Server, error) {
	proxy, err := proxyTo(origin)
	if err != nil {
		return nil, err
	}
	const host = "127.0.0.1"
	ca, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{net.ParseIP(host)}, nil)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(ca, key)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", host+":0") //nolint:noctx // it doesn't wait
	if err != nil {
		return nil, err
	}
	s := &Server{
		sample:     sample,
		client:     http.Client{Transport: WebhookTransport()},
		address:    "https://" + listener.Addr().String(),
		ca:         ca,
		done:       make(chan Task, capacity),
		tasks:      map[string]*storedTask{},
		pods:       map[string]*corev1.Pod{},
		calls:      map[string]float64{},
		taskEvents: newEvents(),
		podEvents:  newEvents(),
	}
	s.server = http.Server{
		Handler:           s.handler(proxy),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: time.Minute,
	}
	go func() { _ = s.server.ServeTLS(listener, "", "") }() // it ends with Close
	return s, nil
}

// Close ends all connections.
func (s *Server) Close() error { return s.server.Close() }

// WriteKubeconfig writes a configuration for the operator.
func (s *Server) WriteKubeconfig(file string) error {
	const name = "standin"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: s.address, CertificateAuthorityData: s.ca}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return clientcmd.WriteToFile(*config, file)
}

// CallWebhook sets the address of the webhook.
func (s *Server) CallWebhook(address string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.webhook = address
}

// Done returns the channel of the Tasks that reached their phase, or failed to.
func (s *Server) Done() <-chan Task { return s.done }

// Calls returns how often the operator has made each call so far.
func (s *Server) Calls() map[string]float64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return maps.Clone(s.calls)
}

// proxyTo returns a handler that forwards calls to a real API server.
func proxyTo(origin *rest.Config) (http.Handler, error) {
	transport, err := rest.TransportFor(origin)
	if err != nil {
		return nil, err
	}
	address, _, err := rest.DefaultServerUrlFor(origin)
	if err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: address.Scheme, Host: address.Host}) },
		Transport:     transport,
		FlushInterval: -1, // for watches
	}, nil
}

// handler serves the calls of an operator that runs Tasks in the sample's namespace.
func (s *Server) handler(proxy http.Handler) http.Handler {
	namespace := "/namespaces/" + s.sample.Task.Namespace
	const core, eventsGroup = "/api/v1", "/apis/events.k8s.io/v1"
	tasks := "/apis/" + v1alpha1.GroupVersion.String()
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.HandleFunc("GET "+tasks+"/tasks", s.serveTasks)
	mux.HandleFunc("GET "+core+"/pods", s.servePods)
	for pattern, call := range map[string]func(name string, body []byte) (runtime.Object, error){
		"GET " + core + namespace + "/pods/{name}":            s.getPod,
		"POST " + core + namespace + "/pods":                  s.createPod,
		"PATCH " + core + namespace + "/pods/{name}":          s.patchPod,
		"PATCH " + tasks + namespace + "/tasks/{name}/status": s.patchTask,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			var answer runtime.Object
			if err == nil {
				answer, err = call(r.PathValue("name"), body)
			}
			s.count(pattern, err)
			reply(w, answer, err)
		})
	}
	createEvent := "POST " + eventsGroup + namespace + "/events"
	mux.HandleFunc(createEvent, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		s.count(createEvent, err)
		if err != nil {
			reply(w, nil, err)
			return
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	})
	return mux
}

// count counts a call, with the name that it has in the API server's metrics.
func (s *Server) count(pattern string, err error) {
	verb, path, _ := strings.Cut(pattern, " ")
	_, path, _ = strings.Cut(path, s.sample.Task.Namespace+"/")
	what := verb + " " + strings.ReplaceAll(path, "/{name}", "")
	if err != nil {
		what += " (failed)"
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.calls[what]++
}

// reply writes the answer of a call as Protobuf, which the operator asks for if it can, or the error as a Status.
func reply(w http.ResponseWriter, answer runtime.Object, err error) {
	if err != nil {
		status := apierrors.APIStatus(nil)
		if !errors.As(err, &status) {
			status = apierrors.NewInternalError(err)
		}
		answer := status.Status()
		answer.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		w.WriteHeader(int(answer.Code))
		_ = json.NewEncoder(w).Encode(answer)
		return
	}
	var body bytes.Buffer
	if err := protobuf.Serializer.Encode(answer, &body); err != nil {
		reply(w, nil, fmt.Errorf("encoding the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	_, _ = w.Write(body.Bytes())
}
