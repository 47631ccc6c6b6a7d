#!/usr/bin/env bash
# Checks that generated files and go.mod files are as their generators make them, and lints all Go code.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
generated=(api config/crd config/rbac config/own-certificates config/certmanager charts go.mod go.sum test/cluster/go.mod test/cluster/go.sum)
tar -cf "$copy/before.tar" "${generated[@]}"
mkdir "$copy/before"
tar -xf "$copy/before.tar" -C "$copy/before"

make --no-print-directory generate
go mod tidy
(cd test/cluster && go mod tidy)
for path in "${generated[@]}"; do
	if ! diff -ru "$copy/before/$path" "$path"; then
		echo "verify: $path was out of date: it has been written anew, commit it" >&2
		exit 1
	fi
done
make --no-print-directory lint
echo "verify: all is well"
