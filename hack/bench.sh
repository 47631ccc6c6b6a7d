#!/usr/bin/env bash
# Runs the benchmarks: first those that need no cluster, which fail where they find a bound exceeded; then test/bench on the
# test cluster, with taskflow as it stands here.
# bench.sh [--quick] [--report FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
cluster="go run -C test/cluster ."

go test -run '^$' -bench . -benchmem ./entrypoint ./webhook

found_up=false
if $cluster status >/dev/null 2>&1; then found_up=true; fi
cleanup() { $found_up || $cluster down; }
trap cleanup EXIT
make --no-print-directory deploy-local
eval "$($cluster env)"
stamp=$(go run ./hack/image --name docker.io/taskflow --push-to "$($cluster registry)/taskflow" --plain-http ./test/bench/stamp)
go run ./test/bench --stamp-image "$stamp" "$@"
