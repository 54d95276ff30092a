# What people type. Everything missing is set up first; see e2e/setup.
CARGO ?= cargo
# The programs as they are shipped; the harness around them stays in the quick-to-build profile.
# exec: a SIGTERM to make must reach the harness and not a shell in between.
RELEASE = $(or $(CARGO_TARGET_DIR),target)/release
# Tests wait more than they work.
TEST_THREADS = 8
HARNESS = exec env PM2_FLEET_BIN=$(RELEASE) $(CARGO) run --quiet --package e2e --bin

.PHONY: help run test screenshots test-matrix test-api test-slots-long test-lost-replies soak bench check fmt lint docs deny setup setup-test release

help:
	@echo 'make run    real PM2 with the six default processes, exporter and poller; Ctrl-C ends all'
	@echo 'make test   every test, against real PM2 and real Prometheus'
	@echo 'make test-matrix  what concerns PM2, on PM2 5, 6 and 7, and with command and daemon apart'
	@echo 'make test-api  what the OpenAPI documents allow and forbid, asked of both programs; API_SEED=1'
	@echo 'make test-slots-long  slots, the long forms: crashes at every step, 200 random commands, 1 GB'
	@echo 'make test-lost-replies  a thousand commands whose answers are lost'
	@echo 'make screenshots  pictures of every page, light, dark, narrow and wide'
	@echo 'make fuzz   frames, what PM2 says, log files and pages of applications, 10 minutes each'
	@echo 'make soak   the poller, the long forms; SEEDS=1000 DAYS=400 KILLS=500 CUT_SECONDS=600 SOAK_MINUTES=60'
	@echo 'make bench  figures beside their targets; SECTIONS="exporter" picks some'
	@echo 'make check  format, lints, documentation, licences'
	@echo 'make fmt    formats the code'

setup:
	@e2e/setup/node

setup-test: setup
	@e2e/setup/debian git prometheus prometheus-alertmanager chromium chromium-driver faketime strace \
	  slowhttptest
	@e2e/setup/python

release:
	$(CARGO) build --release --package pm2-exporter --package pm2-poller

run: setup release
	@$(HARNESS) run

test: setup-test
	$(CARGO) build --workspace --bins
	RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --workspace

# Command and daemon of PM2. The last three: PM2 was upgraded, or downgraded, and not updated.
MATRIX ?= 5/5 6/6 7/7 7/5 7/6 5/7
MATRIX_TESTS = commands:: events:: hung_pm2:: migration:: names:: only_looks:: readings:: refusals:: restarts:: \
	secrets:: several_homes:: shows_processes:: token_limits:: busy_pm2::
MATRIX_SLOTS = deploy:: workspace:: guard::

test-matrix: setup-test
	@e2e/setup/node pm2-5 pm2-6
	$(CARGO) build --workspace --bins
	@for pair in $(MATRIX); do \
	  echo "== PM2 $$pair (command/daemon)"; \
	  export PM2_FLEET_PM2=$${pair%/*} PM2_FLEET_PM2_DAEMON=$${pair#*/} RUST_TEST_THREADS=4; \
	  $(CARGO) test --quiet --package e2e --test suite -- $(MATRIX_TESTS) || exit 1; \
	  [ "$${pair%/*}" != "$${pair#*/}" ] \
	    || $(CARGO) test --quiet --package pm2-exporter --test slots -- $(MATRIX_SLOTS) || exit 1; \
	done

# schemathesis, and odd names, in their long forms; another seed asks otherwise. The suite has short ones.
API_EXAMPLES ?= 100
API_SEED ?= 1

test-api: setup-test
	$(CARGO) build --workspace --bins
	API_EXAMPLES=$(API_EXAMPLES) API_SEED=$(API_SEED) NAMES=100000 \
	  $(CARGO) test --package e2e --test suite -- api:: odd_names --nocapture

# Slots for as long as it takes: the exporter killed at every step again and again, two hundred
# commands in random orders, a build that prints a gigabyte. About ten minutes.
test-slots-long: setup-test
	PM2_FLEET_LONG=10 RUST_TEST_THREADS=2 $(CARGO) test --package pm2-exporter --test slots -- crash model prints --nocapture

# Both the exporter's answers and the poller's are lost: each command ran once.
test-lost-replies:
	PM2_FLEET_LONG=1 $(CARGO) test --package pm2-poller --test suite -- a_reply_that_is_lost

# Every page as people see it, in four looks: to target/screenshots/.
screenshots: setup-test release
	@$(HARNESS) screenshots

# The suite tries the same for a moment (exporter/tests/fuzz). RUSTC_BOOTSTRAP lets a stable compiler take
# the flags that coverage needs.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= frame model logs relay

.PHONY: fuzz
fuzz:
	@e2e/setup/fuzz
	@for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/artifacts/$$target target/fuzz-corpus/$$target; \
	  PATH=$$PWD/target/tools/bin:$$PATH RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target \
	    target/fuzz-corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 \
	    || exit 1; \
	done

# The poller for as long as it takes, each of what the suite has in short: a thousand seeds of the
# simulation, 400 days of history, 500 kills, a link cut for ten minutes, an hour of use after one to
# get warm (SOAK_WARM_MINUTES).
SEEDS ?= 1000
DAYS ?= 400
KILLS ?= 500
CUT_SECONDS ?= 600
soak: setup-test release
	SIMULATION_SEEDS=$(SEEDS) $(CARGO) test --profile soak --package pm2-poller --lib -- simulation
	MANY_DAYS=$(DAYS) $(CARGO) test --profile soak --package pm2-poller --lib -- the_file_stops_growing
	$(CARGO) build --workspace --bins
	KILLS=$(KILLS) CUT_SECONDS=$(CUT_SECONDS) $(CARGO) test --package e2e --test suite -- endures
	$(CARGO) build --release --package e2e --bin soak --bin fleet-sim
	@exec env PM2_FLEET_BIN=$(RELEASE) $(RELEASE)/soak

# The harness as it is shipped too: its simulator must not be what is measured.
bench: setup release
	@e2e/setup/debian prometheus prometheus-node-exporter slowhttptest
	$(CARGO) build --release --package e2e --bin bench --bin fleet-sim
	@exec env PM2_FLEET_BIN=$(RELEASE) $(RELEASE)/bench $(SECTIONS)

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
