# make demo   dream a real clip into demo.mp4
# make web    dream before the camera, in the browser
# make test   lint, types and tests: first those that may run beside each other, then those that keep time
# make test-tensorrt   builds real TensorRT engines of every network; 6 GB in .venv-tensorrt, no GPU needed
PYTHON ?= python3
BIN = .venv/bin
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo web test lint test-together test-alone test-tensorrt clean
demo: .venv/installed
	@clip=$$($(BIN)/python -c 'import gradio.media; print(gradio.media.get_video("world.mp4"))') && \
		$(BIN)/streamdream render "$$clip" -o demo.mp4 -y -t 5
	@echo
	@echo "The dream is in $(CURDIR)/demo.mp4. Next:"
	@echo "  $(BIN)/streamdream render YOUR.mp4 -o dream.mp4                    a video of yours"
	@echo "  $(BIN)/streamdream render YOUR.mp4 -o dream.mp4 --layers mixed4    another layer"
	@echo "  $(BIN)/streamdream image YOUR.jpg -o dream.png                     a picture"

web: .venv/installed
	$(BIN)/streamdream web

test: lint test-together test-alone

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

test-together: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not alone"

test-alone: .venv/installed-dev
	$(BIN)/python -m pytest -m alone

test-tensorrt: .venv-tensorrt/installed
	.venv-tensorrt/bin/python -m pytest --noconftest -p no:cacheprovider tests/test_tensorrt.py

clean:
	rm -rf .venv .venv-tensorrt demo.mp4

# Torch-TensorRT-RTX wants a PyTorch with CUDA, and the newest: neither is what the other tests run with.
.venv-tensorrt/installed: pyproject.toml
	$(PYTHON) -m venv .venv-tensorrt
	.venv-tensorrt/bin/pip install --quiet --disable-pip-version-check --no-compile torch-tensorrt-rtx numpy safetensors \
		platformdirs pytest
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv

# opencv-python is OpenCV with windows; where their system libraries are missing, the build without them serves.
.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv (PyTorch is large: the first time takes minutes)"
	$(INSTALL) -e .
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
		echo "OpenCV's window libraries are missing here; taking opencv-python-headless instead"; \
		$(BIN)/pip uninstall --quiet --yes opencv-python && $(INSTALL) opencv-python-headless; }
	@touch $@

.venv/installed-dev: .venv/installed
	$(INSTALL) -e '.[dev]'
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
		$(BIN)/pip uninstall --quiet --yes opencv-python opencv-python-headless && $(INSTALL) opencv-python-headless; }
	@touch $@
