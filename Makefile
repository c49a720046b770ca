# make demo   dream a clip that comes with the package, into demo.mp4
# make web    dream before the camera, in the browser
# make test   lint, types and tests: first those that may run beside each other, then those that keep time
# make test-browser   with Chromium, Xvfb and xdotool: the page, windows, the screen
# make soak   what takes minutes: hundreds of runs and visits, ten minutes of eight sessions, memory must not grow; a
#             thousand damaged files (tests/fuzz); and the cases of long test tables of which `make test` runs some
# make docs   docs/settings.md, docs/formats.md and the speed tables, made of the settings, of the tests and of results
# make gpu-wheels   what benchmarks/gpu.sh needs on a machine with a GPU and no network, into .dev/wheels
# make test-newest   with the newest of everything, on the Python that NEWEST names: files are read and written, and a
#                    real TensorRT engine is built (make soak: of every network); 7 GB in .venv-newest, no GPU needed
PYTHON ?= python3
NEWEST ?= $(PYTHON)
BIN = .venv/bin
# Tests begin hundreds of processes; each would compile PyTorch's source again where the environment forbids to keep that.
export PYTHONDONTWRITEBYTECODE =
# PyTorch's builds for processors: a tenth of the download of those with CUDA, which pip takes otherwise on Linux.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
NVIDIA_DRIVER ?= /proc/driver/nvidia
HAS_NVIDIA = command -v nvidia-smi >/dev/null || [ -e $(NVIDIA_DRIVER) ]
HAS_TORCH_INDEX = $(BIN)/python -c 'import urllib.request as r; r.urlopen("$(TORCH_INDEX)/torch/", timeout=5)' 2>/dev/null
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo web test docs lint test-together test-alone test-browser soak gpu-wheels test-newest clean
demo: .venv/installed
	$(BIN)/streamdream demo

web: .venv/installed
	$(BIN)/streamdream web

test: lint test-together test-alone

docs: .venv/installed
	$(BIN)/python -m streamdream.cli.settings_page
	PYTHONPATH=tests $(BIN)/python -m support.inputs.page
	$(BIN)/python -m streamdream_bench.readme

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test-together: .venv/installed-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not alone and not browser and not soak"

test-alone: .venv/installed-dev
	$(BIN)/python -m pytest -m "alone and not browser and not soak"

test-browser: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "browser and not soak" $(wildcard tests/test_web_*.py)
	$(BIN)/python -m pytest -m "browser and not soak" --ignore-glob "*/test_web_*.py"

# SOAK_SECONDS=240 makes the longest of it shorter
soak: .venv/installed-dev
	$(BIN)/python -m pytest -m soak -s
	[ ! -e .venv-newest/installed ] || .venv-newest/bin/python -m pytest -p no:cacheprovider -m soak tests/test_tensorrt.py

# What a Python with PyTorch, OpenCV and Pillow lacks; for Python 3.12 on Linux.
gpu-wheels:
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
		--implementation cp $(addprefix --platform manylinux_2_,28_x86_64 27_x86_64 17_x86_64) \
		--platform manylinux2014_x86_64 -d .dev/wheels av==18.1.0 platformdirs==4.14.8 websockets==17.4 \
		cv2-enumerate-cameras==1.4.0

test-newest: .venv-newest/installed
	.venv-newest/bin/python -m pytest -p no:cacheprovider tests/test_pyav.py tests/test_sources.py tests/test_damage.py \
		tests/test_sinks.py tests/test_passthrough.py tests/test_render_resume.py tests/test_tensorrt.py \
		tests/test_input_matrix.py tests/test_video_inputs.py tests/test_hdr.py tests/test_subtitles.py -m "not soak"

clean:
	rm -rf .venv .venv-newest demo.mp4

# No set of versions here: what pip alone takes. Torch-TensorRT-RTX wants the newest PyTorch, with CUDA.
.venv-newest/installed: pyproject.toml
	$(NEWEST) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --disable-pip-version-check --no-compile -e . torch-tensorrt-rtx pytest
	@.venv-newest/bin/python -c 'import cv2' 2>/dev/null || { \
		.venv-newest/bin/pip uninstall --quiet --yes opencv-python && \
		.venv-newest/bin/pip install --quiet --disable-pip-version-check opencv-python-headless; }
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv

# opencv-python is OpenCV with windows; where their system libraries are missing, the build without them serves.
define install
	@echo "installing into .venv (PyTorch is large: the first time takes minutes)"
	@if [ "$$(uname -s)" = Linux ] && ! { $(HAS_NVIDIA); } && $(HAS_TORCH_INDEX); then \
		echo "no NVIDIA GPU: taking PyTorch for processors from $(TORCH_INDEX)"; \
		$(INSTALL) --extra-index-url $(TORCH_INDEX) torch; fi
	$(INSTALL) -e $(1)
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
		echo "OpenCV's window libraries are missing here; taking opencv-python-headless instead"; \
		$(BIN)/pip uninstall -qq --yes opencv-python opencv-python-headless && $(INSTALL) opencv-python-headless; }
	@touch $(sort .venv/installed $@)
endef

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(call install,.)

# What is installed for development is so for everything else, and in one run of pip, not two.
.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(call install,'.[dev]')
