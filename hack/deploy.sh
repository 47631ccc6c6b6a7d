#!/usr/bin/env bash
# Builds the images, pushes them and installs taskflow into the cluster of the current kubeconfig. The images are named by digest, so that a second
# call updates only what has changed. It reads these environment variables, which `make deploy` passes on:
#
#   IMAGES, PUSH_TO, PLAIN_HTTP, PLATFORMS   see hack/images.sh
#   BUILD=false       installs the images of dist/images.yaml. Default: true, which builds them
#   VARIANT           default, or certmanager: cert-manager issues the webhook's certificate
#   NAMESPACES        namespaces to watch, separated by commas. Default: all
#   OPERATOR_FLAGS    further flags of the operator, separated by spaces
#   CONFIG            file with the operator's configuration. Default: no configuration
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${VARIANT:-default}
namespaces=${NAMESPACES:-}
namespaces=${namespaces// /}
case $variant in
default | certmanager) ;;
*)
	echo "deploy: VARIANT=$variant is unknown: set it to default or certmanager" >&2
	exit 1
	;;
esac
# Otherwise the installation would stop halfway.
if [ "$variant" = certmanager ] && ! kubectl get crd certificates.cert-manager.io >/dev/null; then
	echo "deploy: cert-manager isn't in this cluster: install it first, or leave VARIANT=certmanager out" >&2
	exit 1
fi
[ -z "$namespaces" ] || kubectl get namespaces ${namespaces//,/ } >/dev/null

[ "${BUILD:-true}" = false ] || hack/images.sh

source hack/overlay.sh
source hack/remove.sh
overlay=dist/deploy
mkdir -p $overlay
{
	overlay config/$variant ${namespaces:+config/namespaced dist/deploy/bindings.yaml}
	for flag in ${OPERATOR_FLAGS:-}; do
		echo "    - {op: add, path: /spec/template/spec/containers/0/args/-, value: \"$flag\"}"
	done
	if [ -n "$namespaces" ]; then
		cat <<-EOF
			    - {op: add, path: /spec/template/spec/containers/0/args/-, value: "--watch-namespace=$namespaces"}
			- target: {kind: MutatingWebhookConfiguration, name: taskflow}
			  patch: |
		EOF
		for i in 0 1 2 3 4 5; do
			echo "    - {op: add, path: /webhooks/$i/namespaceSelector/matchExpressions/-, value: {key: kubernetes.io/metadata.name, operator: In, values: [$namespaces]}}"
		done
		cat <<-EOF
			- target: {kind: ValidatingWebhookConfiguration, name: taskflow}
			  patch: |
		EOF
		for i in 0 1; do
			echo "    - {op: add, path: /webhooks/$i/namespaceSelector/matchExpressions/-, value: {key: kubernetes.io/metadata.name, operator: In, values: [$namespaces]}}"
		done
		cat <<-EOF
			- target: {kind: ValidatingAdmissionPolicy, name: taskflow-unwatched}
			  patch: |
			    - {op: replace, path: /spec/matchConstraints/namespaceSelector/matchExpressions/0/values, value: [$namespaces]}
			- target: {kind: ClusterRoleBinding, name: taskflow-operator}
			  patch: |
			    {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: taskflow-operator}, \$patch: delete}
		EOF
	fi
	if [ -n "${CONFIG:-}" ]; then
		cat <<-EOF
			- target: {kind: ConfigMap, name: taskflow-config}
			  patch: |
			    - op: replace
			      path: /data/config.yaml
			      value: |
		EOF
		sed 's/^/        /' "$CONFIG"
	fi
} >$overlay/kustomization.yaml
for namespace in ${namespaces//,/ }; do
	cat <<-EOF
		---
		apiVersion: rbac.authorization.k8s.io/v1
		kind: RoleBinding
		metadata: {name: taskflow-operator, namespace: $namespace, labels: {app.kubernetes.io/name: taskflow-operator}}
		roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: taskflow-operator}
		subjects: [{kind: ServiceAccount, name: taskflow-operator, namespace: taskflow-system}]
	EOF
done >$overlay/bindings.yaml

# Removes what is left of the other variant. Both would write the same Secret, and each would overwrite the other's changes.
if [ "$variant" = certmanager ]; then
	kubectl delete --ignore-not-found -f config/own-certificates/bindings.yaml -f config/own-certificates/role.yaml
elif kubectl get crd certificates.cert-manager.io >/dev/null 2>&1; then
	kubectl delete --ignore-not-found -f config/certmanager/certificates.yaml
	kubectl -n taskflow-system delete --ignore-not-found secret taskflow-ca
	# The type of a Secret is immutable, and cert-manager's has another one. The replicas use the certificate in memory until there is a new Secret.
	remove -n taskflow-system secrets --field-selector metadata.name=taskflow-webhook-cert,type=kubernetes.io/tls
fi
# Removes roles of an earlier release, in which only the operator's own certificates required a change of the webhook configuration.
kubectl delete --ignore-not-found clusterrolebinding/taskflow-operator-certificates clusterrole/taskflow-operator-certificates
# Removes the Deployment of an earlier release, which both replicas shared.
kubectl -n taskflow-system delete --ignore-not-found deployment/taskflow-operator service/taskflow-webhook
kubectl apply -k $overlay
# Removes what is left of an installation for other namespaces, or for all.
if [ -n "$namespaces" ]; then
	kubectl delete --ignore-not-found clusterrolebinding taskflow-operator
else
	kubectl delete --ignore-not-found -k config/namespaced
fi
remove rolebindings --all-namespaces -l app.kubernetes.io/name=taskflow-operator \
	--field-selector "metadata.namespace!=taskflow-system$(printf ',metadata.namespace!=%s' ${namespaces//,/ })"
kubectl wait --for=condition=Established --timeout=60s crd/tasks.api.practice.com >/dev/null
kubectl -n taskflow-system rollout status --timeout=180s deployment -l app.kubernetes.io/name=taskflow-operator
