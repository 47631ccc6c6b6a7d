#!/usr/bin/env bash
# Checks that generated files and go.mod files are up to date, and lints all Go code.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
generated=(api charts config go.mod go.sum test/cluster/go.mod test/cluster/go.sum)
cp -r --parents "${generated[@]}" "$copy"

make --no-print-directory generate
go mod tidy
go -C test/cluster mod tidy
for path in "${generated[@]}"; do
	if ! diff -ru "$copy/$path" "$path"; then
		echo "verify: $path was out of date, and has been regenerated: commit it" >&2
		exit 1
	fi
done
make --no-print-directory lint
echo "verify: everything is up to date"
