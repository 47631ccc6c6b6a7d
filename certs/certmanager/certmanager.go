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
	issuer := func(name string) cmmeta.IssuerReference {
		return cmmeta.IssuerReference{Kind: cmapi.IssuerKind, Name: name}
	}
	third := func(life time.Duration) *metav1.Duration { return &metav1.Duration{Duration: life / 3} }
	key := func(rotation cmapi.PrivateKeyRotationPolicy) *cmapi.CertificatePrivateKey {
		return &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 256, RotationPolicy: rotation}
	}
	issuerType := metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.IssuerKind}
	certificateType := metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateKind}
	return []client.Object{
		&cmapi.Issuer{
			TypeMeta:   issuerType,
			ObjectMeta: meta(selfSigned),
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
		&cmapi.Certificate{
			TypeMeta:   certificateType,
			ObjectMeta: meta(authority),
			Spec: cmapi.CertificateSpec{
				IsCA:        true,
				CommonName:  authority,
				SecretName:  authority,
				Duration:    &metav1.Duration{Duration: lifetimes.Authority},
				RenewBefore: third(lifetimes.Authority),
				// The key stays, so that certificates it signed are trusted under the renewed authority, too.
				PrivateKey: key(cmapi.RotationPolicyNever),
				IssuerRef:  issuer(selfSigned),
			},
		},
		&cmapi.Issuer{
			TypeMeta:   issuerType,
			ObjectMeta: meta(authority),
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: authority}}},
		},
		&cmapi.Certificate{
			TypeMeta:   certificateType,
			ObjectMeta: meta(Webhook),
			Spec: cmapi.CertificateSpec{
				DNSNames:    services,
				SecretName:  secret,
				Duration:    &metav1.Duration{Duration: lifetimes.Serving},
				RenewBefore: third(lifetimes.Serving),
				Usages:      []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageServerAuth},
				PrivateKey:  key(cmapi.RotationPolicyAlways),
				IssuerRef:   issuer(authority),
			},
		},
	}
}
