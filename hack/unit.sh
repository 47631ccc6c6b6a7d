#!/usr/bin/env bash
# Runs the tests that need no node: those of the code alone, and those at an API server. Most wait more than they compute, so more run at once
# than there are cores; the longest package begins first. A first run compiles all tests and their images, for which Go's ten minutes a
# package are too few.
set -euo pipefail
cd "$(dirname "$0")/.."

# The race detector is C, with the C library's headers.
if ! echo '#include <stdlib.h>' | $(go env CC) -E - >/dev/null 2>&1; then
	echo "installing Debian packages: gcc libc6-dev"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq -o DPkg::Lock::Timeout=300 update
	apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends --no-remove gcc libc6-dev
fi

# Tests that do no more than run other programs have no races of their own.
outside='/(hack/image|test/chart)$'
KUBEBUILDER_ASSETS=$(go run -C test/cluster . assets)
export KUBEBUILDER_ASSETS
packages=$(go list ./... | grep -vE "$outside")
go test -race -timeout 30m -p 4 -parallel 8 -tags apiserver ./test/apiserver $packages
go test -timeout 30m $(go list ./... | grep -E "$outside")
go test -C test/cluster -race -timeout 30m ./...
