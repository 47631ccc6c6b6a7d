#!/usr/bin/env bash
# Runs all tests, layer by layer, and prints how long each took: without a cluster and at an API server, on a real node. It
# leaves the test cluster as it found it: up or not there. Most tests wait more than they compute, so more run at once than there are
# cores; the longest package begins first.
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
	times+=("$(printf '%-40s %4d s' "$layer" $((SECONDS - began)))")
	printf '%s\n' "${times[-1]}"
}

# The race detector is C, with the C library's headers.
compiler() {
	if echo '#include <stdlib.h>' | $(go env CC) -E - >/dev/null 2>&1; then return; fi
	echo "installing Debian packages: gcc libc6-dev"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq -o DPkg::Lock::Timeout=300 update
	apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends --no-remove gcc libc6-dev
}

# A first run compiles all tests and their images, for which Go's ten minutes a package are too few.
apiserver() {
	local assets
	assets=$($cluster assets)
	KUBEBUILDER_ASSETS=$assets go test -race -timeout 30m -p 4 -parallel 8 -tags apiserver ./test/apiserver/... ./...
	go test -C test/cluster -race -timeout 30m ./...
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
	go test -tags e2e -timeout 30m -count=1 -parallel 8 ./test/e2e/...
}

lifecycle() {
	go test -C test/cluster -tags lifecycle -timeout 20m -count=1 -run TestLifecycle .
}

# Until it is known, the cluster isn't ours to end.
found_up=true
finish() {
	if [ -n "$layer" ]; then layer="$layer: failed" took >/dev/null; fi
	printf '\n'
	printf '%s\n' "${times[@]}"
	$found_up || $cluster down
}
trap finish EXIT

layer "C compiler, for the race detector" compiler
layer "binaries of Kubernetes (built once)" $cluster assets
layer "cert-manager (built once)" $cluster cert-manager
layer "unit tests, tests at an API server" apiserver

found_up=$($cluster running)
layer "make demo" install
layer "tests on the real node" e2e
if $found_up; then
	echo "The life of the test cluster itself isn't tested, since one is up: make down first."
else
	layer "life of the test cluster" lifecycle
fi
