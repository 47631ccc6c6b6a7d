#!/usr/bin/env bash
# Writes a software bill of materials (CycloneDX) for each program in the images: the modules in its Go build information, and its hash.
# sbom.sh DIR writes DIR/operator-linux-amd64.cdx.json and so on, and the programs. PLATFORMS in the environment is as for hack/images.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1
programs=$(go run ./hack/image --programs "$dir" --platform "${PLATFORMS:-linux/amd64,linux/arm64}")
for program in $programs; do
	go tool -modfile=hack/cyclonedx-gomod.mod cyclonedx-gomod bin -json -std -noserial -notimestamp -output "$program.cdx.json" "$program"
done
