# Everything a contributor does, from a bare machine: git, make, gcc and Python 3.11 are enough.
# What is missing comes from the package index and from Debian into .cache/; nothing else is touched.

PYTHON ?= python3
BOARDS ?= 8
ROUNDS ?= 300
MINUTES ?= 10

# Tests start hundreds of processes: where this is set, each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

VENV := .cache/venv
BIN := $(VENV)/bin
# Inside the venv, and named after its Python: another PYTHON makes another venv.
READY := $(VENV)/ready-$(notdir $(PYTHON))
# Fetches what is missing; takes no time when nothing is.
PARTS = $(BIN)/python -m localfleet.parts --quiet
EMULATOR = $(BIN)/python -m localfleet.emulator --quiet
# A worker a core; tests that share a fixture of their module share a worker.
WORKERS := -n auto --maxprocesses 8 --dist loadgroup
PEERS := .cache/peers/ready
STUBS := .cache/stubs/rp2 .cache/stubs/esp32
LOCK = .cache/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast soak bench-aggregator bench-board bench-install bench-peers bench-strategies bench-wire check-wheels numerics results lint format client lock clean
.DELETE_ON_ERROR:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## Install all that is needed into .cache/ and show what was found
	@$(BIN)/python -m localfleet.parts

demo: client ## Train a fleet of real parts: BOARDS=8 ROUNDS=300
	@$(PARTS)
	@$(BIN)/tinymetafed demo --boards $(BOARDS) --rounds $(ROUNDS)

numerics: $(READY) ## Hold fixed point against float64: OMNIGLOT=PATH SPEECH=PATH
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.numerics $(if $(OMNIGLOT),--omniglot $(OMNIGLOT)) \
		$(if $(SPEECH),--speech $(SPEECH))

check-wheels: $(READY) ## Ask the package index for wheels for a 64-bit Raspberry Pi
	@$(BIN)/python tools/wheels.py

results: $(READY) ## Bring what `tinymetafed experiment` found from build/ into docs/
	@$(BIN)/python tools/results.py

bench-wire: $(READY) ## Measure the bytes of an update beside plain codings and the entropy
	@$(BIN)/python -m benchmarks.wire

bench-aggregator: $(READY) ## Measure the aggregator beside bare paho, and Flower after bench-peers
	@$(PARTS)
	@$(BIN)/python -m benchmarks.aggregator

bench-install: $(READY) ## Measure the plain install, beside a former checkout: BEFORE=PATH
	@$(PARTS)
	@$(BIN)/python -m benchmarks.install $(if $(BEFORE),--before $(BEFORE))

bench-peers: $(PEERS) ## Install Flower into an environment of its own, and measure it
	@.cache/peers/bin/python benchmarks/flower.py

bench-strategies: $(READY) ## Play every strategy on sines, clean and with one board in ten poisoned
	@$(BIN)/python -m benchmarks.strategies

test: client ## Run every test, and measure what they cover: build/coverage/index.html
	@$(PARTS) || test -z "$$CI"  # Without CI, tests of an absent part are skipped.
	@$(EMULATOR) || test -z "$$CI"
	@$(BIN)/pytest $(WORKERS) --cov --cov-report=html $(if $(CI),,--cov-fail-under=0)

test-fast: ## Run the tests that need no real parts, without any set-up
	@test -x $(BIN)/pytest || { echo "run make setup first"; exit 1; }
	@$(BIN)/pytest $(WORKERS) -m "not real and not slow"

soak: client ## Inject faults for longer: MINUTES=10 a scenario
	@$(PARTS)
	@SOAK_MINUTES=$(MINUTES) $(BIN)/pytest tests/faults

bench-board: client ## Count a Cortex-M0's instructions beside C, and find the heap it takes
	@$(EMULATOR)
	@$(BIN)/python -m benchmarks.board

# umqtt.simple is in the ESP32's stubs only, hence the second path.
lint: $(READY) $(STUBS) ## Check style, spelling and types, the boards' code against each board's stubs
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/codespell
	@$(BIN)/mypy
	@for stubs in $(STUBS); do \
		MYPYPATH=$$stubs:.cache/stubs/esp32 $(BIN)/mypy --config-file tools/board.ini --custom-typeshed-dir $$stubs \
			micropython_client/tinymetafed micropython_client/examples/boot.py || exit 1; \
	done

format: $(READY) ## Format the code
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format

client: $(READY) ## Compile the boards' package for each architecture into build/client/
	@$(BIN)/python micropython_client/build.py

lock: $(READY) ## Choose the newest versions anew: requirements*.lock and tools/stubs-*.lock
	@$(BIN)/python -m pip install -qq --upgrade --target .cache/uv uv
	@$(LOCK) --upgrade --all-extras --output-file requirements-dev.lock pyproject.toml
	@$(LOCK) --upgrade --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
	@$(LOCK) --upgrade --constraint requirements-dev.lock --extra privacy \
		--output-file requirements-privacy.lock pyproject.toml
	@for board in rp2 esp32; do \
		echo "micropython-$$board-stubs==1.29.*" | \
			$(LOCK) --upgrade --no-annotate --output-file tools/stubs-$$board.lock -; \
	done

clean: ## Remove all that make made
	@rm -rf build .cache *.egg-info .pytest_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): requirements-dev.lock pyproject.toml tools/setup.sh
	@tools/setup.sh $(PYTHON)
	@touch $@

$(PEERS): benchmarks/peers.txt | $(READY)
	@echo "setup: installing $$(grep -c == $<) peers into .cache/peers"
	@$(BIN)/python -m venv --clear --without-pip .cache/peers
	@$(BIN)/python -m pip --python .cache/peers/bin/python install -qq --requirement $<
	@touch $@

# A viper function takes any buffer where its hint says ptr32. The stubs' decorator would refuse
# the array that bytecode hands it, so it is told to take anything.
.cache/stubs/%: tools/stubs-%.lock | $(READY)
	@echo "setup: installing the stubs of $*"
	@rm -rf $@ $@.new
	@$(BIN)/python -m pip install -qq --no-compile --require-hashes --target $@.new -r $<
	@sed -i 's/^def viper(.*/def viper(_func: Callable[..., _Ret], \/) -> Callable[..., _Ret]:/' \
		$@.new/micropython.pyi
	@mv $@.new $@ && touch $@
