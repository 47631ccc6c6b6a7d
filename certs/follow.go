package certs

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// follow gives the webhooks that validate Tasks a path, which follows from the one of the webhooks that mutate Pods, and with SourceOwn their CA
// bundle. Nothing waits for it, because these webhooks have failurePolicy Ignore.
func (k *Keeper) follow(ctx context.Context, pods *admissionv1.MutatingWebhookConfiguration) error {
	var config admissionv1.ValidatingWebhookConfiguration
	if err := k.client.Get(ctx, client.ObjectKey{Name: k.options.WebhookConfiguration}, &config); err != nil {
		return client.IgnoreNotFound(err)
	}
	paths := pathsOf(secretWebhooks(pods))
	if len(paths) == 0 || !isSecret(paths[0]) {
		return nil
	}
	path := tasksPathOf(paths[0])
	next := config.DeepCopy()
	for i := range next.Webhooks {
		c := &next.Webhooks[i].ClientConfig
		if c.Service != nil {
			c.Service.Path = &path
		}
		if k.options.Source == SourceOwn {
			c.CABundle = pods.Webhooks[0].ClientConfig.CABundle
		}
	}
	if equality.Semantic.DeepEqual(&config, next) {
		return nil
	}
	if err := k.client.Update(ctx, next); err != nil {
		return fmt.Errorf("updating the ValidatingWebhookConfiguration %s: %w", next.Name, err)
	}
	return nil
}
