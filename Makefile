# Two commands are all a newcomer needs: `make demo` and `make test`. Each sets up its own virtual environment.
PYTHON ?= python3
DEMO := .venv/demo
comma := ,
DEV := .venv/dev
TENSORRT := $(patsubst tests/%.txt,.venv/%/ready,$(wildcard tests/tensorrt-*.txt))

.PHONY: demo test bench soak clean

demo: $(DEMO)/ready
	$(DEMO)/bin/python examples/demo.py demo

test: $(DEV)/ready $(TENSORRT)
	@command -v ffmpeg >/dev/null || { echo "make test needs ffmpeg and GStreamer's RTSP server; on Debian" \
		".ci/run installs them, and what else is missing" >&2; exit 1; }
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports
	$(DEV)/bin/pytest -n 2 --dist loadfile --cov --cov-report=term

# How fast is it here? Rewrites the table in README.md.
bench: $(DEV)/ready
	$(DEV)/bin/python benchmarks/cpu.py

# Live for MINUTES, with its camera killed now and then: memory, handles, and sound against picture.
MINUTES ?= 20
soak: $(DEV)/ready
	$(DEV)/bin/python -m tests.soak $(MINUTES)

# The runtime and the studio: no torch, no onnx.
$(DEMO)/ready: setup.py pyproject.toml
	$(call create,$(DEMO))
	$(call install,$(DEMO),cpu$(comma)studio)

# The tests want PyTorch's build for processors; one without such a choice, as on macOS, is the default one.
CPU_TORCH := torch==2.13.0+cpu

$(DEV)/ready: setup.py pyproject.toml
	$(call create,$(DEV))
	$(DEV)/bin/pip install --quiet --disable-pip-version-check $(CPU_TORCH) || echo "make: pip finds no $(CPU_TORCH):" \
		"the default build of PyTorch is installed, on Linux the one for CUDA, some gigabytes. For the smaller one set" \
		"PIP_EXTRA_INDEX_URL to the address that \"Get started\" on pytorch.org gives for CPU, and run make clean test" >&2
	$(call install,$(DEV),dev)

# The bindings of each TensorRT version that the tests know, for machines without it: see tests/tensorrt_bindings.py.
.venv/tensorrt-%/ready: tests/tensorrt-%.txt tests/tensorrt_bindings.py $(DEV)/ready
	rm -rf $(@D)
	$(DEV)/bin/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
		--target $(@D) --requirement $<
	$(DEV)/bin/python tests/tensorrt_bindings.py $(@D)
	@touch $@

define create
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "JOKR-RT needs Python 3.10 to 3.13; name one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(1)
endef

define install
	$(1)/bin/pip install --quiet --disable-pip-version-check --editable '.[$(2)]'
	@touch $@
endef

clean:
	rm -rf .venv demo build *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache
