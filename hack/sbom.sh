#!/usr/bin/env bash
# Writes a software bill of materials, as CycloneDX, of each program in the images: the modules that Go's build information in it names,
# and the hash of the program.
# sbom.sh DIR [PLATFORMS]: DIR/operator-linux-amd64.cdx.json and so on, beside the programs themselves.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1 platforms=${2:-linux/amd64,linux/arm64}
programs=$(go run ./hack/image --programs "$dir" --platform "$platforms")
for program in $programs; do
	go tool -modfile=hack/cyclonedx-gomod.mod cyclonedx-gomod bin -json -std -noserial -notimestamp -output "$program.cdx.json" "$program"
done
