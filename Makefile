# `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The scripts in hack/ read these from their environment.
export IMAGES PUSH_TO PLAIN_HTTP PLATFORMS OPERATOR_FLAGS CONFIG VARIANT NAMESPACES CRD

CLUSTER := go run -C test/cluster .
GOLANGCI_LINT := go tool -modfile=hack/golangci-lint.mod golangci-lint

##@ Try it

.PHONY: demo
demo: ## Start a cluster on this machine, install taskflow into it and run the first Task.
	@hack/demo.sh

.PHONY: up
up: ## Start the test cluster, or repair it. For its kubectl: eval "$(go run -C test/cluster . env)"
	@$(CLUSTER) up

.PHONY: down
down: ## Stop the test cluster and remove everything that it created.
	@$(CLUSTER) down

.PHONY: cluster-status
cluster-status: ## Print the state of the test cluster.
	@$(CLUSTER) status

.PHONY: deploy-local
deploy-local: up ## Build taskflow and install it into the test cluster.
	@environment="$$($(CLUSTER) env)" && eval "$$environment" && registry="$$($(CLUSTER) registry)" && \
	$(MAKE) --no-print-directory deploy IMAGES=docker.io/taskflow PUSH_TO="$$registry/taskflow" PLAIN_HTTP=true \
	  OPERATOR_FLAGS="--start-grace-period=30s --shutdown-delay=2s --cert-lifetime=3m --log-level=debug" CONFIG=test/e2e/operator.yaml PLATFORMS=linux/$$(go env GOARCH)

##@ Install

.PHONY: deploy
deploy: ## Build taskflow, push it to IMAGES (such as ghcr.io/me) and install it into the cluster of the current kubeconfig. VARIANT=certmanager: cert-manager issues the certificate. NAMESPACES=a,b: watch only these.
	@hack/deploy.sh

.PHONY: images
images: ## Build the two images, push them to IMAGES and write their names, by digest, to dist/images.yaml: values for the Helm chart.
	@hack/images.sh

.PHONY: manifests
manifests: ## Build the two images, push them to IMAGES and render the manifests of each variant: dist/install.yaml and dist/install-certmanager.yaml.
	@hack/manifests.sh

.PHONY: sbom
sbom: ## Write a software bill of materials (CycloneDX) for each program in the images: dist/sbom/operator-linux-amd64.cdx.json and so on.
	@hack/sbom.sh dist/sbom

.PHONY: undeploy
undeploy: ## Remove taskflow from the cluster of the current kubeconfig. CRD=remove also removes the kind Task, with all Tasks.
	@hack/undeploy.sh

##@ Develop

.PHONY: test
test: ## Run all tests: unit, API server, real node. Needs root for the last.
	@hack/test.sh

.PHONY: quick
quick: ## Check what has changed since main: format, vet, unit tests. Needs no root and no API server. BASE=COMMIT: since that one.
	@hack/quick.sh

.PHONY: unit
unit: ## Run the tests that need no node: unit tests, and tests at an API server.
	@hack/unit.sh

.PHONY: repeat
repeat: deploy-local ## Run the tests for races between a first step and the start of the other containers 20 times. COUNT=5: 5 times. RUN=file: only that case.
	@environment="$$($(CLUSTER) env)" && eval "$$environment" && \
	go test -tags e2e -timeout 60m -parallel 8 -count=$(or $(COUNT),20) -run 'TestSettledAtTheStart/^($(or $(RUN),subpath|workdir-replaced|workdir-cloned|workdir-of-user|workdir-linked|file))-(slow|quick)' ./test/e2e

.PHONY: bench
bench: ## Measure the cost of functions and of the operator, and sequences on the test cluster in comparison with other tools. Writes docs/benchmarks.md.
	@mkdir -p docs && hack/bench.sh --report docs/benchmarks.md

.PHONY: bench-quick
bench-quick: ## Run a short version of bench, in three minutes. Writes to standard output.
	@hack/bench.sh --quick

.PHONY: generate
generate: ## Write the generated files: DeepCopy functions, the CRD, RBAC roles, cert-manager's objects, and config/ from the Helm chart.
	@hack/generate.sh

.PHONY: format
format: ## Format the Go code.
	$(GOLANGCI_LINT) fmt ./...
	cd test/cluster && go tool -modfile=../../hack/golangci-lint.mod golangci-lint fmt --config ../../.golangci.yml ./...

.PHONY: lint
lint: ## Check the format and the code of all modules.
	$(GOLANGCI_LINT) run ./...
	cd test/cluster && go tool -modfile=../../hack/golangci-lint.mod golangci-lint run --config ../../.golangci.yml ./...

.PHONY: verify
verify: ## Check that generated files and go.mod files are up to date, and lint.
	@hack/verify.sh

.PHONY: help
help: ## Print this.
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
