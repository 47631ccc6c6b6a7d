#!/usr/bin/env bash
# Builds the images, pushes them and installs taskflow into the cluster of the current kubeconfig.
# deploy.sh IMAGES [PUSH_TO [PLAIN_HTTP [OPERATOR_FLAGS [CONFIG [VARIANT [PLATFORMS]]]]]]: see the Makefile. The images are named by digest, so that a
# second call changes what has changed, and no more.
set -euo pipefail
cd "$(dirname "$0")/.."
images=${1:-} push_to=${2:-} plain_http=${3:-false} operator_flags=${4:-} config=${5:-} variant=${6:-default} platforms=${7:-linux/amd64,linux/arm64}
if [ -z "$images" ]; then
	echo 'deploy: IMAGES is missing: set it to where the images are pushed, such as "make deploy IMAGES=ghcr.io/me"' >&2
	exit 1
fi
case $variant in
default | certmanager) ;;
*)
	echo "deploy: VARIANT=$variant is unknown: set it to default or certmanager" >&2
	exit 1
	;;
esac

built=$(go run ./hack/image --name "$images" --push-to "$push_to" --plain-http="${plain_http:-false}" --platform "$platforms")
operator=$(sed -n 1p <<<"$built") agent=$(sed -n 2p <<<"$built")

overlay=dist/deploy
mkdir -p $overlay
{
	cat <<-EOF
		resources: [../../config/$variant]
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

kubectl apply -k $overlay
kubectl wait --for=condition=Established --timeout=60s crd/tasks.api.practice.com >/dev/null
kubectl -n taskflow-system rollout status --timeout=180s deployment/taskflow-operator
