# What people type. Everything missing is set up first; see e2e/setup.
CARGO ?= cargo
# The programs as they are shipped; the harness around them stays in the quick-to-build profile.
# exec: a SIGTERM to make must reach the harness and not a shell in between.
RELEASE = $(or $(CARGO_TARGET_DIR),target)/release
HARNESS = exec env PM2_FLEET_BIN=$(RELEASE) $(CARGO) run --quiet --package e2e --bin

.PHONY: help run test bench check fmt lint docs deny setup setup-test release

help:
	@echo 'make run    real PM2 with the six default processes, exporter and poller; Ctrl-C ends all'
	@echo 'make test   every test, against real PM2 and real Prometheus'
	@echo 'make bench  the exporter beside npm pm2-metrics'
	@echo 'make check  format, lints, documentation, licences'
	@echo 'make fmt    formats the code'

setup:
	@e2e/setup/node

setup-test: setup
	@e2e/setup/debian prometheus

release:
	$(CARGO) build --release --package pm2-exporter --package pm2-poller

run: setup release
	@$(HARNESS) run

test: setup-test
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace

bench: setup release
	@$(HARNESS) bench

check: fmt-check lint docs deny

fmt:
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt --all -- --check

lint:
	$(CARGO) clippy --workspace --all-targets -- --deny warnings

docs:
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --workspace --no-deps --document-private-items

deny:
	@e2e/setup/deny
