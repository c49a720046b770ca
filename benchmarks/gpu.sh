#!/usr/bin/env bash
# Fill the GPU tables of docs/speed.md: step, frame, equality, render, live, sessions, codecs; at most ten minutes.
#
#   benchmarks/gpu.sh                     then `make docs`, where the results are in benchmarks/results/
#   QUICK=1 benchmarks/gpu.sh             at most three minutes
#   DEVICE=cpu SMALL=1 benchmarks/gpu.sh  tiny sizes, to see that all of it runs
#
# Needs a Python with PyTorch, and no network: streamdream is used from this folder, and what else is missing is
# installed from wheels, which `make gpu-wheels` has downloaded elsewhere (36 MB, for Python 3.12 on Linux).
#
#   PYTHON  the interpreter, python3         DEVICE  as --device, cuda       OUT   folder of the results
#   WHEELS  folder, .dev/wheels              CLIP    a video to dream        PARTS such as gpu-step,gpu-frame
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} wheels=${WHEELS:-.dev/wheels}
scale=full
[ -z "${QUICK:-}" ] || scale=quick
[ -z "${SMALL:-}" ] || scale=small

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$PWD/streamdream" "$work/streamdream"
ln -s "$PWD/benchmarks" "$work/streamdream_bench"
ln -s "$PWD/web" "$work/streamdream_web"
if ! "$python" -c "import av, cv2_enumerate_cameras, platformdirs, websockets" 2>/dev/null; then
    compgen -G "$wheels/*.whl" >/dev/null || {
        echo "error: PyAV or another package is missing, and $wheels has no wheels: make gpu-wheels" >&2; exit 2; }
    "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
        --target "$work/site" "$wheels"/*.whl
fi
export PYTHONPATH=$work:$work/site${PYTHONPATH:+:$PYTHONPATH} PYTHONPYCACHEPREFIX=$work/pycache
export STREAMDREAM_CACHE=${STREAMDREAM_CACHE:-$work/cache}
unset PYTHONDONTWRITEBYTECODE
"$python" -m streamdream_bench.gpu "${OUT:-benchmarks/results}" --device "${DEVICE:-cuda}" --scale "$scale" \
    --clip "${CLIP:-}" --parts "${PARTS:-}"
