#!/usr/bin/env bash
# Builds the images, pushes them and installs taskflow into the cluster of the current kubeconfig.
# deploy.sh IMAGES [PUSH_TO [PLAIN_HTTP [OPERATOR_FLAGS [CONFIG [VARIANT [PLATFORMS [NAMESPACES]]]]]]]: see the Makefile. The images are named by
# digest, so that a second call changes what has changed, and no more.
set -euo pipefail
cd "$(dirname "$0")/.."
operator_flags=${4:-} config=${5:-} variant=${6:-default}
namespaces=${8:-} # to look after, separated by commas; all where there are none
case $variant in
default | certmanager) ;;
*)
	echo "deploy: VARIANT=$variant is unknown: set it to default or certmanager" >&2
	exit 1
	;;
esac

hack/images.sh "${1:-}" "${2:-}" "${3:-}" "${7:-}"
operator=$(sed -n 's/^  operator: //p' dist/images.yaml) agent=$(sed -n 's/^  agent: //p' dist/images.yaml)

overlay=dist/deploy
mkdir -p $overlay
{
	cat <<-EOF
		resources: [../../config/$variant${namespaces:+, ../../config/namespaced, bindings.yaml}]
		images:
		- {name: taskflow/operator, newName: ${operator%@*}, digest: ${operator#*@}}
		patches:
		- target: {kind: Deployment, name: taskflow-operator}
		  patch: |
		    - {op: replace, path: /spec/template/spec/containers/0/args/0, value: "--agent-image=$agent"}
	EOF
	for flag in $operator_flags; do
		echo "    - {op: add, path: /spec/template/spec/containers/0/args/-, value: \"$flag\"}"
	done
	if [ -n "$namespaces" ]; then
		cat <<-EOF
			    - {op: add, path: /spec/template/spec/containers/0/args/-, value: "--watch-namespace=$namespaces"}
			- target: {kind: MutatingWebhookConfiguration, name: taskflow}
			  patch: |
			    - {op: add, path: /webhooks/0/namespaceSelector/matchExpressions/-, value: {key: kubernetes.io/metadata.name, operator: In, values: [$namespaces]}}
			    - {op: add, path: /webhooks/1/namespaceSelector/matchExpressions/-, value: {key: kubernetes.io/metadata.name, operator: In, values: [$namespaces]}}
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

kubectl apply -k $overlay
# What an installation for other namespaces, or for all, has left.
if [ -n "$namespaces" ]; then
	kubectl delete --ignore-not-found clusterrolebinding taskflow-operator
else
	kubectl delete --ignore-not-found -k config/namespaced
fi
kubectl delete rolebindings --all-namespaces -l app.kubernetes.io/name=taskflow-operator \
	--field-selector "metadata.namespace!=taskflow-system$(printf ',metadata.namespace!=%s' ${namespaces//,/ })"
kubectl wait --for=condition=Established --timeout=60s crd/tasks.api.practice.com >/dev/null
kubectl -n taskflow-system rollout status --timeout=180s deployment/taskflow-operator
