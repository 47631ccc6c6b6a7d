#!/usr/bin/env bash
# Runs all tests and prints how long each layer took: those that need no node (hack/unit.sh), which have what the others leave of the
# processors; and those on a real node, which mostly wait. It leaves the test cluster as it found it: up or not there.
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

# A session of its own is a group of its own for the scheduler (sched(7), autogroup), which gets 137 parts of a processor beside the 1024 of each
# other one: enough to go on all the time, since its tests wait for each other, too. Where there are no such groups, it takes its share.
start_unit() {
	mkdir -p dist
	setsid bash -c '
		echo 9 2>/dev/null >/proc/self/autogroup || true
		hack/unit.sh && result=0 || result=$?
		echo $SECONDS >dist/unit.seconds
		exit $result' >dist/unit.log 2>&1 &
	unit=$!
}

finish_unit() {
	local result=0
	wait "$unit" || result=$?
	unit=''
	began=$((SECONDS - $(<dist/unit.seconds)))
	cat dist/unit.log
	return $result
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
found_up=true unit=''
finish() {
	if [ -n "$unit" ]; then
		kill -- "-$unit" 2>/dev/null || true # the tests end what they have started
		wait "$unit" 2>/dev/null || true
	fi
	if [ -n "$layer" ]; then layer="$layer: failed" took >/dev/null; fi
	printf '\n'
	printf '%s\n' "${times[@]}"
	$found_up || $cluster down
}
trap finish EXIT

layer "binaries of Kubernetes (built once)" $cluster assets
layer "cert-manager (built once)" $cluster cert-manager

start_unit
found_up=$($cluster running)
if $found_up; then
	echo "The life of the test cluster itself isn't tested, since one is up: make down first."
else
	layer "life of the test cluster" lifecycle
fi
layer "make demo" install
layer "tests on the real node" e2e
layer "unit tests, tests at an API server (beside those)" finish_unit
