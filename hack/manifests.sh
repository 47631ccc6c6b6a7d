#!/usr/bin/env bash
# Builds the images, pushes them and renders the manifests that install taskflow with them: dist/install.yaml and dist/install-certmanager.yaml.
# It reads the environment variables of hack/images.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source hack/overlay.sh
hack/images.sh
for variant in default certmanager; do
	mkdir -p dist/$variant
	overlay config/$variant >dist/$variant/kustomization.yaml
done
kustomize="go tool -modfile=hack/kustomize.mod kustomize"
$kustomize build dist/default -o dist/install.yaml
$kustomize build dist/certmanager -o dist/install-certmanager.yaml
