#!/usr/bin/env bash
# Runs all tests, layer by layer, and prints how long each took: without a cluster and at an API server, on a real node. It
# leaves the test cluster as it found it: up or not there. Most tests wait more than they compute, so more run at once than there are
# cores; the longest package begins first.
set -euo pipefail
cd "$(dirname "$0")/.."
cluster="go run -C test/cluster ."
times=()

layer() { # name, command
	local began=$SECONDS
	printf '\n\033[1m%s\033[0m\n' "$1"
	"${@:2}"
	times+=("$(printf '%-40s %4d s' "$1" $((SECONDS - began)))")
}

apiserver() {
	KUBEBUILDER_ASSETS=$($cluster assets) go test -race -p 4 -parallel 8 -tags apiserver ./test/apiserver/... ./...
	go test -C test/cluster -race ./...
}

install() {
	hack/demo.sh
	BROKEN_AGENT_IMAGE=$(go run ./hack/image --name docker.io/taskflow --push-to "$($cluster registry)/taskflow" --plain-http ./test/e2e/brokenagent)
	export BROKEN_AGENT_IMAGE
}

e2e() {
	eval "$($cluster env)"
	eval "$($cluster cert-manager)"
	go test -tags e2e -timeout 30m -count=1 -parallel 8 ./test/e2e/...
}

lifecycle() {
	go test -C test/cluster -tags lifecycle -timeout 20m -count=1 -run TestLifecycle .
}

layer "binaries of Kubernetes (built once)" $cluster assets
layer "cert-manager (built once)" $cluster cert-manager
layer "unit tests, tests at an API server" apiserver

found_up=false
if $cluster status >/dev/null 2>&1; then found_up=true; fi
cleanup() { $found_up || $cluster down; }
trap cleanup EXIT

layer "make demo" install
layer "tests on the real node" e2e
if $found_up; then
	echo "The life of the test cluster itself isn't tested, since one is up: make down first."
else
	layer "life of the test cluster" lifecycle
fi

printf '\n'
printf '%s\n' "${times[@]}"
