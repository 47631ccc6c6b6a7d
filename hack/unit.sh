#!/usr/bin/env bash
# Runs the tests that need no node: unit tests, and tests at an API server. Most tests wait more than they compute, so more of them run at once than
# there are cores. The longest package starts first. The timeout is longer than Go's ten minutes, because a first run compiles all tests and images.
set -euo pipefail
cd "$(dirname "$0")/.."

# The race detector needs a C compiler and the headers of the C library.
if ! echo '#include <stdlib.h>' | $(go env CC) -E - >/dev/null 2>&1; then
	echo "installing Debian packages: gcc libc6-dev"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq -o DPkg::Lock::Timeout=300 update
	apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends --no-remove gcc libc6-dev
fi

# Tests that only run other programs can't have races.
outside='/(hack/image|test/chart)$'
KUBEBUILDER_ASSETS=$(go run -C test/cluster . assets)
export KUBEBUILDER_ASSETS
packages=$(go list ./... | grep -vE "$outside")
go test -race -timeout 30m -p 4 -parallel 8 -tags apiserver ./test/apiserver $packages
go test -timeout 30m $(go list ./... | grep -E "$outside")
go test -C test/cluster -race -timeout 30m ./...
