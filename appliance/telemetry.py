"""What keeps dependencies quiet. The seal stops whatever would send; these switches stop it from trying."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SILENT: Mapping[str, str] = MappingProxyType(
    {
        # the convention that most follow: vLLM, huggingface_hub, hf_xet
        "DO_NOT_TRACK": "1",
        "DISABLE_TELEMETRY": "1",
        # vLLM posts hardware, model and settings at each start and every ten minutes; and where, if it still did
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_USAGE_STATS_SERVER": "",
        "RAY_USAGE_STATS_ENABLED": "0",
        # two plugins of vLLM's own fetch adapters, one from the hub: only the named one is loaded
        "VLLM_PLUGINS": "bitsandbytes",
        # vLLM asks NVIDIA's file server whether FlashInfer's kernels could be had; no address, no look-up
        "FLASHINFER_CUBINS_REPOSITORY": "",
        # no file, token, update check, list of agents or statistics from or to the hub
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_XET_TELEMETRY_ENABLED": "0",
        # OpenTelemetry, which vLLM, FastAPI and the clients of Anthropic and of MCP hold: no spans, no exporter
        "OTEL_SDK_DISABLED": "true",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "FASTAPI_OTEL_AUTO_CONFIGURE": "false",
        "ANTHROPIC_OPEN_TELEMETRY": "false",
        # Sentry's client comes with FastAPI's command line, and sends nothing without an address
        "SENTRY_DSN": "",
        # compiled kernels are cached in the engine's own folder, never in a store on the network
        "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "0",
        "TORCHINDUCTOR_AUTOTUNE_REMOTE_CACHE": "0",
        "TORCHINDUCTOR_BUNDLED_AUTOTUNE_REMOTE_CACHE": "0",
        "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": "0",
        # should anything call pip, as the scripts of vLLM's hosting package can
        "PIP_NO_INDEX": "1",
    }
)
"""Part of the environment of every program of the engine's and the preparation's environments."""
