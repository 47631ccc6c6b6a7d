#!/usr/bin/env bash
# Runs all tests and prints how long each layer takes: first the tests that need no node (hack/unit.sh), then the tests on a real node. They don't run
# at the same time, because tests with a deadline would fail for lack of CPU. It leaves the test cluster as it was: running, or not there.
set -euo pipefail
cd "$(dirname "$0")/.."
cluster="go run -C test/cluster ."
times=() layer='' began=0

layer() { # name, command
	layer=$1 began=$SECONDS
	printf '\n\033[1m%s\033[0m\n' "$layer"
	"${@:2}"
	took
	layer=''
}

took() {
	times+=("$(printf '%-48s %4d s' "$layer" $((SECONDS - began)))")
	printf '%s\n' "${times[-1]}"
}

install() {
	hack/demo.sh
	BROKEN_AGENT_IMAGE=$(go run ./hack/image --name docker.io/taskflow --push-to "$($cluster registry)/taskflow" --plain-http ./test/e2e/brokenagent)
	export BROKEN_AGENT_IMAGE
}

e2e() {
	local environment certmanager
	environment=$($cluster env)
	certmanager=$($cluster cert-manager)
	eval "$environment"
	eval "$certmanager"
	go test -tags e2e -timeout 30m -count=1 -parallel 6 ./test/e2e/...
}

attacks() {
	local environment
	environment=$($cluster env)
	eval "$environment"
	go test -tags e2e -timeout 30m -count=1 -parallel 6 ./test/attack/...
}

lifecycle() {
	go test -C test/cluster -tags lifecycle -timeout 20m -count=1 -run TestLifecycle .
}

# Assume that the cluster was running until this is known, so that it is not stopped by mistake.
found_up=true
finish() {
	if [ -n "$layer" ]; then layer="$layer: failed" took >/dev/null; fi
	printf '\n'
	printf '%s\n' "${times[@]}"
	$found_up || $cluster down
}
trap finish EXIT

layer "binaries of Kubernetes (built once)" $cluster assets
layer "cert-manager (built once)" $cluster cert-manager

layer "unit tests, tests at an API server" hack/unit.sh
found_up=$($cluster running)
if $found_up; then
	echo "Skipping the tests of the cluster's own lifecycle, because the test cluster is running: to run them, make down first."
else
	layer "lifecycle of the test cluster" lifecycle
fi
layer "make demo" install
layer "tests on the real node" e2e
layer "attacks on the real node" attacks
