# Set-up, tests, demo and benchmarks; each target can be run on a fresh machine with Rust.

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# The program just built, then PostgreSQL's own programs, which not every system puts on the search path.
RELEASE_PATH = PATH="$(TARGET)/release:$$(sh .ci/setup postgres-bin):$$PATH"

.PHONY: test demo bench soak check setup setup-sdk setup-majors

# Everything that must hold before work lands.
test: setup setup-sdk setup-majors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	PATH="$$PATH:$$(sh .ci/setup postgres-bin)" INSTA_UPDATE=no \
		LAKEFORGE_TEST_POSTGRES="$$(sh .ci/setup majors "$(TARGET)")" $(CARGO) test --locked
	python3 -m unittest discover examples/clinic/tests
	PATH="$$PATH:$$(sh .ci/setup postgres-bin)" LAKEFORGE_PROGRAM="$(TARGET)/debug/lakeforge" \
		"$$(sh .ci/setup sdk "$(TARGET)")" -B -m unittest discover tests/sdk

# The whole life of an example bundle on an embedded workspace; cleans up after itself.
demo: setup
	$(CARGO) build --locked --release
	$(RELEASE_PATH) sh examples/clinic/demo/run.sh

# Speed and size beside plain alternatives, as ratios of one run.
bench: setup
	$(CARGO) build --locked --release
	$(RELEASE_PATH) python3 benches/run.py

# An embedded workspace under load, killed again and again: nothing confirmed may be lost. ROUNDS and
# SEED may be given; a failure names its own. Then two programs about one branch, in 200,000 orders.
ROUNDS ?= 200
SEED ?= $(shell date +%s)
soak: setup
	PATH="$$PATH:$$(sh .ci/setup postgres-bin)" LAKEFORGE_SOAK_ROUNDS=$(ROUNDS) LAKEFORGE_SEED=$(SEED) \
		$(CARGO) test --locked --test cli soak:: -- --ignored --nocapture
	$(CARGO) test --locked --lib model:: -- --ignored

# The quick half of `test`.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked --lib

# Installs what is missing beside Rust, and says so first.
setup:
	@sh .ci/setup

# Makes the Python environment of tests/sdk below the target folder, unless it is there.
setup-sdk: setup
	@sh .ci/setup sdk "$(TARGET)" >/dev/null

# Fetches the majors of PostgreSQL that tests use beside the system's own, unless they are there.
setup-majors: setup
	@sh .ci/setup majors "$(TARGET)" >/dev/null
