#!/usr/bin/env bash
# Builds the images, pushes them and installs taskflow into the cluster of the current kubeconfig.
# deploy.sh IMAGES [PUSH_TO [PLAIN_HTTP [OPERATOR_FLAGS [CONFIG [VARIANT [PLATFORMS [NAMESPACES]]]]]]]: see the Makefile. The images are named by
# digest, so that a second call changes what has changed, and no more. With - as IMAGES nothing is built: those of dist/images.yaml are installed.
set -euo pipefail
cd "$(dirname "$0")/.."
operator_flags=${4:-} config=${5:-} variant=${6:-default}
namespaces=${8:-} # to look after, separated by commas; all where there are none
namespaces=${namespaces// /}
case $variant in
default | certmanager) ;;
*)
	echo "deploy: VARIANT=$variant is unknown: set it to default or certmanager" >&2
	exit 1
	;;
esac
# What is missing would be found with one half of the objects there, and the other not.
if [ "$variant" = certmanager ] && ! kubectl get crd certificates.cert-manager.io >/dev/null; then
	echo "deploy: cert-manager isn't in this cluster: install it first, or leave VARIANT=certmanager out" >&2
	exit 1
fi
[ -z "$namespaces" ] || kubectl get namespaces ${namespaces//,/ } >/dev/null

[ "${1:-}" = - ] || hack/images.sh "${1:-}" "${2:-}" "${3:-}" "${7:-}"

source hack/overlay.sh
source hack/remove.sh
overlay=dist/deploy
mkdir -p $overlay
{
	overlay config/$variant ${namespaces:+config/namespaced dist/deploy/bindings.yaml}
	for flag in $operator_flags; do
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
			- target: {kind: ValidatingAdmissionPolicy, name: taskflow-unwatched}
			  patch: |
			    - {op: replace, path: /spec/matchConstraints/namespaceSelector/matchExpressions/0/values, value: [$namespaces]}
			- target: {kind: ClusterRoleBinding, name: taskflow-operator}
			  patch: |
			    {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: taskflow-operator}, \$patch: delete}
		EOF
	fi
	if [ -n "$config" ]; then
		cat <<-EOF
			- target: {kind: ConfigMap, name: taskflow-config}
			  patch: |
			    - op: replace
			      path: /data/config.yaml
			      value: |
		EOF
		sed 's/^/        /' "$config"
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

# What an installation of the other variant has left: two would keep the same Secret, and each mend what the other has written.
if [ "$variant" = certmanager ]; then
	kubectl delete --ignore-not-found -f config/own-certificates/bindings.yaml -f config/own-certificates/role.yaml
elif kubectl get crd certificates.cert-manager.io >/dev/null 2>&1; then
	kubectl delete --ignore-not-found -f config/certmanager/certificates.yaml
	kubectl -n taskflow-system delete --ignore-not-found secret taskflow-ca
	# cert-manager's is of another type, which nobody can change; until there is a new one, the replicas go on with what they have.
	remove -n taskflow-system secrets --field-selector metadata.name=taskflow-webhook-cert,type=kubernetes.io/tls
fi
# From when the operator changed the webhook configuration only if it kept the certificate.
kubectl delete --ignore-not-found clusterrolebinding/taskflow-operator-certificates clusterrole/taskflow-operator-certificates
# An installation from before the replicas had a Deployment each.
kubectl -n taskflow-system delete --ignore-not-found deployment/taskflow-operator service/taskflow-webhook
kubectl apply -k $overlay
# What an installation for other namespaces, or for all, has left.
if [ -n "$namespaces" ]; then
	kubectl delete --ignore-not-found clusterrolebinding taskflow-operator
else
	kubectl delete --ignore-not-found -k config/namespaced
fi
remove rolebindings --all-namespaces -l app.kubernetes.io/name=taskflow-operator \
	--field-selector "metadata.namespace!=taskflow-system$(printf ',metadata.namespace!=%s' ${namespaces//,/ })"
kubectl wait --for=condition=Established --timeout=60s crd/tasks.api.practice.com >/dev/null
kubectl -n taskflow-system rollout status --timeout=180s deployment -l app.kubernetes.io/name=taskflow-operator
