package certs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// The controller lists and watches Secrets in its namespace, and webhook configurations in the cluster; it writes its own only.
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=secrets,resourceNames=taskflow-webhook-cert,verbs=update
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations,verbs=get;list;watch
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations,resourceNames=taskflow,verbs=update

// FileName is the file in Options.Dir with the certificate and its private key, one after the other. Both are in one
// file so that one rename changes both.
const FileName = "tls.crt"

const keyName = "tls.key" // in the Secret

// Options say what the certificate is for and where it is kept.
type Options struct {
	// Secret that holds the authority and the certificate. It must exist; it may be empty.
	Secret types.NamespacedName
	// Dir is where FileName is written.
	Dir string
	// WebhookConfiguration is the name of the MutatingWebhookConfiguration that gets the authority.
	WebhookConfiguration string
	// Service is the DNS name that the API server calls.
	Service string
}

// CacheOptions make the manager's cache hold the one Secret, and no other.
func (o Options) CacheOptions() cache.ByObject {
	return cache.ByObject{
		Namespaces: map[string]cache.Config{o.Secret.Namespace: {}},
		Field:      fields.OneTermEqualSelector("metadata.name", o.Secret.Name),
	}
}

// SetupWithManager makes every replica keep the certificate. The channel is closed when the file is there and the API server
// trusts what is in it.
func SetupWithManager(m manager.Manager, o Options) (ready <-chan struct{}, err error) {
	if err := m.Add(&fileWriter{cache: m.GetCache(), dir: o.Dir}); err != nil {
		return nil, err
	}
	isReady := make(chan struct{})
	err = rotator.AddRotator(m, &rotator.CertRotator{
		SecretKey:      o.Secret,
		CertDir:        o.Dir,
		CertName:       FileName,
		KeyName:        keyName,
		CAName:         "taskflow-ca",
		CAOrganization: "taskflow",
		DNSName:        o.Service,
		IsReady:        isReady,
		Webhooks:       []rotator.WebhookInfo{{Name: o.WebhookConfiguration, Type: rotator.Mutating}},
	})
	if err != nil {
		return nil, fmt.Errorf("setting up the rotation of certificates: %w", err)
	}
	return isReady, nil
}

// fileWriter writes the file whenever the Secret changes. A Secret that is mounted as a volume would do the same, a minute
// later (the kubelet's sync period): long enough to make the first start look broken.
type fileWriter struct {
	cache cache.Cache
	dir   string
}

// NeedLeaderElection is false: every replica serves the webhook.
func (*fileWriter) NeedLeaderElection() bool { return false }

// Start writes the file until the context ends.
func (w *fileWriter) Start(ctx context.Context) error {
	informer, err := w.cache.GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("watching the Secret of the webhook's certificate: %w", err)
	}
	write := func(object any) {
		secret, ok := object.(*corev1.Secret)
		if !ok || len(secret.Data[FileName]) == 0 || len(secret.Data[keyName]) == 0 {
			return // cert-controller fills it in a moment
		}
		if err := writeFile(w.dir, secret.Data[FileName], secret.Data[keyName]); err != nil {
			logf.FromContext(ctx).Error(err, "Can't write the webhook's certificate")
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    write,
		UpdateFunc: func(_, object any) { write(object) },
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// writeFile replaces the file in one step.
func writeFile(dir string, certificate, key []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	content := bytes.Join([][]byte{certificate, key}, []byte("\n"))
	temp := filepath.Join(dir, "."+FileName)
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, FileName))
}
