#!/usr/bin/env bash
# Runs the benchmarks. They fail where they find a bound exceeded. Compare two runs with benchstat.
# bench.sh [PATTERN]
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t packages < <(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u)
go test -run '^$' -bench "${1:-.}" -benchmem "${packages[@]}"
