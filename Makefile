# `make demo` shows what icechest does on real data; `make test` runs every test; `make torture` kills processes that use
# one chest, thousands of times in ten minutes, and fuzzes every decoder for a moment. They share one build.

CARGO ?= cargo
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := $(TARGET)/python
REQUIREMENTS := tests/python/requirements.txt

.PHONY: demo test torture build python lint clean

demo: build
	$(TARGET)/debug/icechest demo --dir $(TARGET)/demo

test: build python
	ICECHEST_PYTHON="$(abspath $(VENV))/bin/python" $(CARGO) test --workspace
	@# The other tests need threads of the system, so they do not run with this feature.
	$(CARGO) test -p icechest --no-default-features --features model --target-dir $(TARGET)/core --lib store::model

# One test after the other, so that each has the machine for itself; the output is for whoever watches.
torture: build
	ICECHEST_TORTURE_SECONDS=600 $(CARGO) test --workspace --test it -- --nocapture --test-threads=1 torture::kills tiers::damage
	fuzz/run.sh 15

# All features and all targets at once: with other selections Cargo would compile polars a second time.
build:
	@echo "Building; the first time this compiles polars and takes about 20 minutes on two cores."
	$(CARGO) build --workspace --all-targets

# The readers that the files are tested with: numpy, pyarrow, polars, pandas, blosc2.
python: $(VENV)/ready

$(VENV)/ready: $(REQUIREMENTS)
	$(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off -r $(REQUIREMENTS)
	touch $@

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

clean:
	$(CARGO) clean
