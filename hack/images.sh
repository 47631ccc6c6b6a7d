#!/usr/bin/env bash
# Builds the images, pushes them and writes their names, by digest, into dist/images.yaml, as values for the Helm chart.
# images.sh IMAGES [PUSH_TO [PLAIN_HTTP [PLATFORMS]]]: see the Makefile.
set -euo pipefail
cd "$(dirname "$0")/.."
images=${1:-} push_to=${2:-} plain_http=${3:-} platforms=${4:-}
if [ -z "$images" ]; then
	echo 'images: IMAGES is missing: set it to where the images are pushed, such as IMAGES=ghcr.io/me' >&2
	exit 1
fi
mkdir -p dist
{
	echo images:
	go run ./hack/image --name "$images" --push-to "$push_to" --plain-http="${plain_http:-false}" --platform "${platforms:-linux/amd64,linux/arm64}" |
		sed -E 's#^.*/(operator|agent)@.*#  \1: &#'
} >dist/images.yaml.new
mv dist/images.yaml.new dist/images.yaml
cat dist/images.yaml
