#!/bin/sh
# Run `check`, `speed` and `train`, or those named, with the packages of gpu-bundle/ (docs/gpu.md):
#
#     sh benchmarks/gpu/start.sh check
#     OUT=results sh benchmarks/gpu/start.sh check speed train --volume 15
#
# Options after the names go to benchmarks/gpu/run.py. Environment: OUT (default gpu-results), PYTHON (python3),
# BUNDLE (gpu-bundle in the checkout; without it, the packages of this Python must suffice).
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd) || exit 1
python=${PYTHON:-python3} bundle=${BUNDLE:-$root/gpu-bundle} out=${OUT:-gpu-results}
names=
while :; do
    case ${1-} in check | speed | train) names="$names $1" && shift ;; *) break ;; esac
done
site=$(mktemp -d) || exit 1
trap 'rm -rf "$site"' EXIT
trap 'exit 143' INT TERM
if [ -d "$bundle/wheels" ]; then
    "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
        --target "$site" "$bundle"/wheels/*.whl || exit 1
fi
[ -d "$bundle/peers" ] && set -- --peers "$bundle/peers" "$@"
[ -f "$bundle/images.zip" ] && set -- --images "$bundle/images.zip" "$@"
export PYTHONPATH="$root/src:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 SAGAN_CACHE="$site/cache"
status=0
for name in ${names:-check speed train}; do
    "$python" "$root/benchmarks/gpu/run.py" "$name" --out "$out" "$@" || status=1
done
exit $status
