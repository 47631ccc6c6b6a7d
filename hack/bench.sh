#!/usr/bin/env bash
# Runs the benchmarks. They fail where they find a bound exceeded. Compare two runs with benchstat.
# bench.sh [PATTERN]
set -euo pipefail
cd "$(dirname "$0")/.."
go test -run '^$' -bench "${1:-.}" -benchmem ./... | grep -v -e '^?' -e '^PASS$' -e '^ok .*\[no tests to run\]'
