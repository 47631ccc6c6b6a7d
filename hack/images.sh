#!/usr/bin/env bash
# Builds the images, pushes them and writes their names, by digest, to dist/images.yaml, as values for the Helm chart. It reads these environment
# variables, which `make images` passes on:
#
#   IMAGES        prefix of the images' names, such as ghcr.io/me. Required
#   PUSH_TO       prefix that they are pushed to. Default: IMAGES
#   PLAIN_HTTP    true: the registry has no TLS. Default: false
#   PLATFORMS     platforms to build for. Default: linux/amd64,linux/arm64
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${IMAGES:-}" ]; then
	echo 'images: IMAGES is missing: set it to where the images are pushed, such as IMAGES=ghcr.io/me' >&2
	exit 1
fi
mkdir -p dist
{
	echo images:
	go run ./hack/image --name "$IMAGES" --push-to "${PUSH_TO:-}" --plain-http="${PLAIN_HTTP:-false}" --platform "${PLATFORMS:-linux/amd64,linux/arm64}" |
		sed -E 's#^.*/(operator|agent)@.*#  \1: &#'
} >dist/images.yaml.new
mv dist/images.yaml.new dist/images.yaml
cat dist/images.yaml
