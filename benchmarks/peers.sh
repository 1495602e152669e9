#!/bin/bash
# Installs the gateways that benchmarks/overhead.py compares with, each in an environment of its own.
# None of them is a part of the appliance. What is missing at measuring time is skipped and says so.
#
#   benchmarks/peers.sh                 all of them
#   benchmarks/peers.sh litellm nginx   only these
set -euo pipefail
cd "$(dirname "$0")/.."

PEERS=${PEERS:-.venvs}
UV=${UV:-.venvs/uv/bin/uv}
# uv doesn't read pip's settings
[[ -z ${PIP_INDEX_URL:-} ]] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}

python_peer() {
    local folder=$PEERS/peers-$1
    "$UV" venv --quiet --clear --python "${PYTHON:-3.11}" "$folder"
    "$UV" pip install --quiet --python "$folder/bin/python" "${@:2}"
}

install_vllm-router() { python_peer vllm-router vllm-router==0.1.17; }

install_litellm() { python_peer litellm 'litellm[proxy]==1.106.0'; }

install_portkey() {
    command -v npm > /dev/null || { echo "portkey needs Node and npm (Debian: apt install nodejs npm)" >&2; return 1; }
    npm install --silent --no-fund --no-audit --prefix "$PEERS/peers-portkey" @portkey-ai/gateway@1.15.2
}

install_nginx() {
    command -v nginx > /dev/null || apt-get install --yes --quiet nginx-light > /dev/null
}

status=0
for peer in "${@:-nginx vllm-router litellm portkey}"; do
    for name in $peer; do
        echo "Installing $name ..."
        "install_$name" || { echo "! $name is not installed and will be skipped" >&2; status=1; }
    done
done
exit $status
