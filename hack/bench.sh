#!/usr/bin/env bash
# Runs the benchmarks: first those that need no cluster, which fail where they find a bound exceeded; then what the operator costs
# (test/bench/operator), beside an API server of its own; then sequences on the test cluster (test/bench), with taskflow as it stands here.
# bench.sh [--quick] [--report FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
cluster="go run -C test/cluster ."
quick=() report=/dev/stdout
while (($#)); do
	case $1 in
	--quick) quick=(--quick) ;;
	--report) report=$2 && shift ;;
	*) echo "bench.sh: unknown argument $1" >&2 && exit 2 ;;
	esac
	shift
done
temp=$(mktemp -d)
found_up=false
if $cluster status >/dev/null 2>&1; then found_up=true; fi
cleanup() {
	rm -rf "$temp"
	$found_up || $cluster down
}
trap cleanup EXIT

go test -run '^$' -bench . -benchmem ./agent ./entrypoint ./webhook

CGO_ENABLED=0 go build -o "$temp/operator" ./cmd/operator
go build -o "$temp/bench" ./test/bench/operator
KUBEBUILDER_ASSETS=$($cluster assets) "$temp/bench" --operator "$temp/operator" --kwok "$($cluster kwok)" "${quick[@]}" >"$temp/operator.md"

make --no-print-directory deploy-local
eval "$($cluster env)"
go run ./test/bench "${quick[@]}" --report "$temp/node.md"
cat "$temp/node.md" "$temp/operator.md" >"$report"
