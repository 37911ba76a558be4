# `make demo` shows the main job on a cluster of real machines; `make test` runs everything.
.DEFAULT_GOAL := help
.PHONY: help demo down kubeconfig test test-fast test-crash test-masters torture fuzz build lint fmt generate bench bench-footprint bench-engine bench-rollout bench-masters bench-catalogs deny

help: ## Say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: ## Build everything, start a cluster of three machines, and move a NodeConfig over it
	@e2e/demo

down: ## End the clusters of the demo and of the tests; nothing of them stays
	@e2e/down

kubeconfig: ## Print the path of the demo's kubeconfig (make -s kubeconfig)
	@e2e/testbed/testbed kubeconfig

test: ## Run all tests: units, generated files, CRD validation on a real API server, real machines
	@e2e/test

test-fast: ## Run the tests that need neither root nor a cluster
	@cargo test --quiet --locked --workspace --exclude drover-e2e

test-crash: ## Kill, stop and blind the operator at each of its writes, and judge what comes of it; an hour or more
	@e2e/crash/run

test-masters: ## Update, scale, kill, stop and cut off masters under load, and count what is lost; a quarter of an hour
	@e2e/test-masters

torture: ## Kill the agent at every system call that changes something, and fail each; a quarter of an hour
	@e2e/torture/run

fuzz: ## Fuzz what takes bytes from outside, a minute for each target (FUZZ_SECONDS)
	@e2e/fuzz

build: ## Build the product's static binaries
	@bash -c 'source e2e/lib.sh; build_product; ls -l $$product/drover $$product/drover-agent'

lint: ## Check formatting and lints
	@cargo fmt --all --check
	@cargo clippy --quiet --locked --workspace --all-targets -- -D warnings

fmt: ## Format the code
	@cargo fmt --all

generate: ## Write the CRDs and docs/resources.md anew from the types in crds/
	@cargo run --quiet --locked -p drover-config

bench: bench-footprint bench-engine bench-rollout bench-masters bench-catalogs ## Run all benchmarks; they write target/bench/*.json (docs/benchmarks.md)

bench-footprint: ## Measure start times, memory and image sizes on a fresh cluster
	@e2e/bench-footprint

bench-engine: ## Measure the agent beside Puppet, CFEngine, Salt and Ansible on the same 100 resources
	@e2e/bench-engine

bench-rollout: ## Measure a Rollout over 1,000 and 5,000 make-believe nodes, beside the same writes by a bare loop
	@e2e/bench-rollout

bench-masters: ## Measure two masters whose 10,000 agents all start at once, and the same agents in peace
	@e2e/bench-masters

bench-catalogs: ## Measure what a catalog costs a master, and Debian's puppetserver beside it
	@e2e/bench-catalogs

deny: ## Check licences and advisories of the dependencies (installs cargo-deny where it is missing)
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	@cargo deny check
