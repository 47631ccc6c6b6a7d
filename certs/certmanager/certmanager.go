// Package certmanager builds the objects that make cert-manager issue the webhook's certificate: a long-lived authority of its own, and a
// serving certificate that it signs. hack/certmanager renders them into config/certmanager.
//
// A self-signed serving certificate would need fewer objects. But each renewal would replace the authority, and calls would fail until the
// API server and all replicas had noticed.
package certmanager

import (
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/certs"
)

const (
	selfSigned = "taskflow-self-signed"
	authority  = "taskflow-ca"
	// Webhook is the Certificate in the webhook configuration's annotation cert-manager.io/inject-ca-from.
	Webhook = "taskflow-webhook"
)

// Objects returns the objects for cert-manager.
func Objects(namespace string, services []string, secret string, lifetimes certs.Lifetimes) []client.Object {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: namespace, Name: name} }
	kind := func(kind string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: kind}
	}
	issuer := func(name string, config cmapi.IssuerConfig) client.Object {
		return &cmapi.Issuer{TypeMeta: kind(cmapi.IssuerKind), ObjectMeta: meta(name), Spec: cmapi.IssuerSpec{IssuerConfig: config}}
	}
	certificate := func(name, issuer string, life time.Duration, key cmapi.PrivateKeyRotationPolicy, spec cmapi.CertificateSpec) client.Object {
		spec.Duration, spec.RenewBefore = &metav1.Duration{Duration: life}, &metav1.Duration{Duration: life / 3}
		spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 256, RotationPolicy: key}
		spec.IssuerRef = cmmeta.IssuerReference{Kind: cmapi.IssuerKind, Name: issuer}
		return &cmapi.Certificate{TypeMeta: kind(cmapi.CertificateKind), ObjectMeta: meta(name), Spec: spec}
	}
	return []client.Object{
		issuer(selfSigned, cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}),
		// The key stays, so that certificates it signed are trusted under the renewed authority, too.
		certificate(authority, selfSigned, lifetimes.Authority, cmapi.RotationPolicyNever,
			cmapi.CertificateSpec{IsCA: true, CommonName: authority, SecretName: authority}),
		issuer(authority, cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: authority}}),
		certificate(Webhook, authority, lifetimes.Serving, cmapi.RotationPolicyAlways,
			cmapi.CertificateSpec{
				DNSNames: services, SecretName: secret, Usages: []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageServerAuth},
			}),
	}
}
