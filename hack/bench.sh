#!/usr/bin/env bash
# Runs the benchmarks: functions, without a cluster; the cost of the operator (test/bench/operator), with an API server of its own; and sequences on the
# test cluster (test/bench), with taskflow built from this tree. Each writes its results to dist/bench, so they remain if a later one fails. The
# script writes the report first, and then fails if a bound is exceeded or a goal is missed.
# bench.sh [--quick] [--report FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
cluster="go run -C test/cluster ."
quick=() report=
while (($#)); do
	case $1 in
	--quick) quick=(--quick) ;;
	--report) report=$2 && shift ;;
	*) echo "bench.sh: unknown argument $1" >&2 && exit 2 ;;
	esac
	shift
done
found_up=$($cluster running)
trap '$found_up || $cluster down' EXIT

out=dist/bench
rm -rf $out
mkdir -p $out
CGO_ENABLED=0 go build -o $out/operator ./cmd/operator
go build -o $out/bench-operator ./test/bench/operator
go build -o $out/bench-node ./test/bench
assets=$($cluster assets) kwok=$($cluster kwok)

exceeded=false
if ((${#quick[@]} == 0)); then
	go test -run '^$' -bench . -benchmem ./agent ./internal/entrypoint ./webhook | tee $out/functions.txt || exceeded=true
	{
		printf '\n## Functions\n\n`go test -bench`: a hop between agents without containers, look-ups of images, the webhook by the number of containers. '
		printf 'It fails if a cached look-up takes more than 20 µs or asks the registry, if 1,000 first look-ups of one image ask for it more than once, or if a container costs the webhook more than twice as much in a Pod of 100 as in a Pod of 10.\n\n```\n'
		grep -E '^(pkg:|cpu:|Benchmark|---|ok|FAIL)' $out/functions.txt
		printf '```\n'
	} >$out/functions.md
fi
KUBEBUILDER_ASSETS=$assets $out/bench-operator --operator $out/operator --kwok "$kwok" "${quick[@]}" >$out/operator.md

make --no-print-directory deploy-local
environment=$($cluster env)
eval "$environment"
$out/bench-node "${quick[@]}" --report $out/node.md

parts=($out/node.md $out/operator.md)
if [ -e $out/functions.md ]; then parts+=($out/functions.md); fi
cat "${parts[@]}"
if [ -n "$report" ]; then cat "${parts[@]}" >"$report"; fi
# A single round on a shared machine is too noisy to check goals.
if ((${#quick[@]} == 0)) && grep -h -F '**missed**' "${parts[@]}" >&2 || $exceeded; then
	echo "bench: not all goals are met, or not all bounds kept: see above" >&2
	exit 1
fi
