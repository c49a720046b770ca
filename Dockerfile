# streamdream in a container: the page on port 7860.
#
#   docker build -t streamdream .                      on the processor
#   docker run -p 7860:7860 -v dreams:/cache streamdream
#   docker build -t streamdream:cuda --target cuda .   on an NVIDIA GPU, with TensorRT
#   docker run --gpus all -p 7860:7860 -v dreams:/cache streamdream:cuda
#
# Networks and engines are kept in /cache. What comes after the image's name are flags of `streamdream web`, above all
# who may come in: --auth or --token. Without any flags a token is made, and `docker logs` shows the link with it.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# OpenCV's libraries; a C++ compiler for PyTorch's, which is a backend on both
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 g++ \
    && rm -rf /var/lib/apt/lists/*

FROM base AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY streamdream streamdream
COPY web web
COPY benchmarks benchmarks
RUN pip wheel --no-deps --wheel-dir /wheels .

# What is the same in both images, apart from the packages: who runs it, where it keeps things, how it is asked after.
FROM base AS run
RUN useradd --uid 1000 --create-home dreamer \
    && mkdir /cache \
    && chown dreamer /cache
ENV STREAMDREAM_CACHE=/cache \
    TORCH_HOME=/cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TRITON_CACHE_DIR=/cache/triton
VOLUME /cache
WORKDIR /home/dreamer
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
ENTRYPOINT ["streamdream", "web", "--host", "0.0.0.0", "--port", "7860"]
CMD ["--token", "new"]

FROM run AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
COPY constraints.txt /tmp/
# pip's own torch brings the CUDA libraries; only the driver comes from outside
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install -c /tmp/constraints.txt "$(echo /wheels/*.whl)[tensorrt,heic,metrics]"
USER 1000

# The last one is what a build without --target makes.
FROM run AS cpu
COPY constraints.txt /tmp/
# PyTorch's own index has builds without CUDA, a tenth of the size
RUN pip install -c /tmp/constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install -c /tmp/constraints.txt "$(echo /wheels/*.whl)[openvino,heic,metrics]"
USER 1000
