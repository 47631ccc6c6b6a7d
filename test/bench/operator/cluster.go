package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

//go:embed kubelet.yaml
var kubelet []byte

const (
	operatorNamespace = "taskflow-system"
	taskNamespace     = "bench"
	nodes             = 100
)

// cluster is a separate API server with simulated nodes.
type cluster struct {
	client.WithWatch
	clientset  *kubernetes.Clientset
	config     *rest.Config
	kubeconfig string
	dir        string // for all files; stop removes it
	processes  []process
	stops      []stop
	failed     context.CancelCauseFunc // ends everything if one of the programs exits by itself
}

// startCluster starts etcd, the API server and kwok. There is no scheduler and no controller manager: the Tasks name their nodes.
func startCluster(ctx context.Context, kwok string, failed context.CancelCauseFunc) (c *cluster, err error) {
	c = &cluster{failed: failed}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	if c.dir, err = os.MkdirTemp("", "taskflow-bench-"); err != nil {
		return c, err
	}
	c.stops = append(c.stops, func() error { return os.RemoveAll(c.dir) })
	environment := &envtest.Environment{
		CRDDirectoryPaths:        []string{"config/crd/tasks.yaml"},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: time.Minute,
	}
	config, err := environment.Start()
	if err != nil {
		return c, err
	}
	c.stops = append(c.stops, environment.Stop)
	if c.processes, err = children(); err != nil {
		return c, err
	}
	config.QPS = -1
	c.config = config
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return c, err
		}
	}
	if c.WithWatch, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return c, err
	}
	if c.clientset, err = kubernetes.NewForConfig(config); err != nil {
		return c, err
	}
	if err := c.createAll(ctx); err != nil {
		return c, err
	}
	c.kubeconfig = filepath.Join(c.dir, "kubeconfig")
	stages := filepath.Join(c.dir, "kubelet.yaml")
	for file, content := range map[string][]byte{c.kubeconfig: environment.KubeConfig, stages: kubelet} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return c, err
		}
	}
	_, err = c.start(kwok, nil, "--kubeconfig="+c.kubeconfig, "--config="+stages)
	return c, err
}

// createAll creates the namespaces and the nodes.
func (c *cluster) createAll(ctx context.Context) error {
	var objects []client.Object
	for _, name := range []string{operatorNamespace, taskNamespace} {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for i := range nodes {
		objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)}})
	}
	for _, object := range objects {
		if err := c.Create(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i%nodes) }

// start starts a process that ends with the cluster.
func (c *cluster) start(path string, environment []string, args ...string) (process, error) {
	p, stop, err := start(c.dir, path, c.failed, environment, args...)
	if err != nil {
		return p, err
	}
	c.processes = append(c.processes, p)
	c.stops = append(c.stops, stop)
	return p, nil
}

// stop ends everything, in reverse order of the start.
func (c *cluster) stop() error {
	var err error
	for _, stop := range slices.Backward(c.stops) {
		err = errors.Join(err, stop())
	}
	return err
}

// operator is a running taskflow operator. Only its address differs from an operator in a cluster.
type operator struct {
	process
	webhook string // its address
	profile string
	end     stop
}

// memoryLimit is the limit that the operator derives in the container of config/manager: two fifths of 512 MiB.
const memoryLimit = "GOMEMLIMIT=214748364"

// startOperator starts the operator, and returns when it is ready. KUBECONFIG in the environment can name another API server than the
// cluster's.
func (c *cluster) startOperator(ctx context.Context, path string, environment ...string) (*operator, error) {
	var ports [3]string
	for i := range ports {
		var err error
		if ports[i], err = freePort(ctx); err != nil {
			return nil, err
		}
	}
	if err := c.routeWebhook(ctx, ports[0]); err != nil {
		return nil, err
	}
	p, end, err := start(c.dir, path, c.failed, slices.Concat([]string{"KUBECONFIG=" + c.kubeconfig, memoryLimit}, environment), "--namespace="+operatorNamespace,
		"--webhook-port="+ports[0], "--health-address=127.0.0.1:"+ports[1], "--profile-address=127.0.0.1:"+ports[2], "--metrics-address=0", "--shutdown-delay=0s")
	if err != nil {
		return nil, err
	}
	o := &operator{process: process{name: operatorName, pid: p.pid}, profile: "http://127.0.0.1:" + ports[2], end: end}
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return isOK(ctx, "http://127.0.0.1:"+ports[1]+"/readyz"), nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the operator isn't ready: %w", err), end())
	}
	var hook admissionregistrationv1.MutatingWebhookConfiguration
	if err := c.Get(ctx, client.ObjectKey{Name: "taskflow"}, &hook); err != nil {
		return nil, errors.Join(err, end())
	}
	o.webhook = "https://localhost:" + ports[0] + *hook.Webhooks[0].ClientConfig.Service.Path // the operator writes it
	return o, nil
}

// idle waits until the operator has nothing to do: it uses less than a tenth of a core for two seconds.
func (o *operator) idle(ctx context.Context) error {
	const interval = 2 * time.Second
	var before time.Duration
	return wait.PollUntilContextTimeout(ctx, interval, patience, true, func(context.Context) (bool, error) {
		now, err := o.cpu()
		used := now - before
		before = now
		return now != used && used < interval/10, err // the first look has nothing to compare with
	})
}

// routeWebhook makes the API server call the operator on this machine. The operator's own certificate is valid for the name of the Service.
func (c *cluster) routeWebhook(ctx context.Context, port string) error {
	number, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return err
	}
	content, err := os.ReadFile("config/webhook/mutating_webhook.yaml")
	if err != nil {
		return err
	}
	var hook admissionregistrationv1.MutatingWebhookConfiguration
	if err := yaml.Unmarshal(content, &hook); err != nil {
		return err
	}
	objects := []client.Object{&hook}
	called := map[string]bool{} // each replica has two webhooks
	for i := range hook.Webhooks {
		reference := hook.Webhooks[i].ClientConfig.Service
		reference.Port = new(int32(number))
		if !called[reference.Name] {
			called[reference.Name] = true
			objects = append(objects, &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: reference.Name, Namespace: operatorNamespace},
				Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
			})
		}
	}
	for _, object := range objects {
		if err := c.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
			return err
		}
		object.SetResourceVersion("")
		if err := c.Create(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

func isOK(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

func freePort(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "localhost:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

// calls counts the calls to the API server, by verb and resource.
type calls map[string]float64

// counter returns the calls so far.
type counter func(context.Context) (calls, error)

// calls reads the count from the metrics of the API server.
func (c *cluster) calls(ctx context.Context) (calls, error) {
	metrics, err := c.clientset.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(metrics))
	if err != nil {
		return nil, err
	}
	all := calls{}
	for _, metric := range families["apiserver_request_total"].GetMetric() {
		labels := map[string]string{}
		for _, label := range metric.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		what := labels["verb"] + " " + labels["resource"]
		if labels["subresource"] != "" {
			what += "/" + labels["subresource"]
		}
		if code := labels["code"]; !strings.HasPrefix(code, "2") && code != "0" {
			what += " (" + code + ")"
		}
		all[what] += metric.GetCounter().GetValue()
	}
	return all, nil
}

// since returns the calls since an earlier count.
func (c calls) since(before calls) calls {
	delta := maps.Clone(c)
	for what, count := range before {
		delta[what] -= count
	}
	return delta
}
