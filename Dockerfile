# Two images of the appliance, `--target cpu` and `--target gpu`. docs/deploy.md says how to build and run them.
#
# Environments come from the same hash-locks and the same make targets as on a bare machine. Weights and
# cards are mounted: they are larger than the rest, change on their own, and are prepared elsewhere.

# Debian's own Python 3.11 is the one that the locks were made for. For a build that can be repeated to the
# byte, give the base by digest: --build-arg BASE=docker.io/library/debian:bookworm-slim@sha256:...
ARG BASE=docker.io/library/debian:bookworm-slim

# --- What building and running have in common --------------------------------------------------------------------
FROM ${BASE} AS base
# ca-certificates: an `endpoint: https://...` without a `ca:` of its own trusts the system's authorities.
# tini: process 1 has to reap what `docker exec` and health checks orphan; a Python program doesn't.
# Packages have no versions, so that a rebuild takes Debian's security updates.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
# The numbers are fixed, because volumes on the host are owned by numbers.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/appliance --shell /usr/sbin/nologin \
        appliance \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/appliance \
    # Where a Unix socket can be shared with a proxy: a new volume takes over owner and mode.
    && install --directory --owner 10001 --group 10001 --mode 0750 /run/appliance

# --- The environments; nothing of this stage but .venvs is kept --------------------------------------------------
FROM base AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends make python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/appliance
COPY Makefile ./
COPY configs/locks configs/locks

FROM build AS build-cpu
# Where packages come from, if not from the public indexes; the Makefile reads the first two. PIP_FIND_LINKS is
# a URL, or a folder that the build mounts (buildah, podman: --volume FOLDER:FOLDER:ro), with torch's CPU build.
# The other two name the same file, for pip and for uv: the authority of a proxy that looks into TLS.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
ARG SSL_CERT_FILE
RUN make gateway engine DEVICE=cpu \
    && python3 -m compileall -q --invalidation-mode unchecked-hash .venvs/gateway/lib \
    && rm -rf .venvs/uv /root/.cache

FROM build AS build-gpu
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
ARG SSL_CERT_FILE
RUN make gateway engine DEVICE=cuda \
    && python3 -m compileall -q --invalidation-mode unchecked-hash .venvs/gateway/lib \
    && rm -rf .venvs/uv /root/.cache

# The appliance itself, with its bytecode: a read-only root file system can't take it later.
FROM base AS code
WORKDIR /opt/appliance
COPY appliance appliance
COPY configs/container/appliance.yaml configs/appliance.yaml
COPY configs/container/healthcheck.py ./
RUN mkdir models && python3 -m compileall -q --invalidation-mode unchecked-hash appliance

# --- What runs ---------------------------------------------------------------------------------------------------
FROM base AS runtime
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Inference appliance" \
      org.opencontainers.image.description="Open-weight models behind one door that stays shut" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
ENV PATH=/opt/appliance/.venvs/gateway/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /opt/appliance
EXPOSE 8000
VOLUME /var/lib/appliance
# Not alive but ready: that a process runs, Docker and Podman know themselves; whether models answer, they don't.
# Neither restarts a container for it. What does (Swarm, autoheal) should ask /health/live: an engine comes back
# by itself, sooner than a new container would load it.
HEALTHCHECK --interval=15s --timeout=5s --start-period=15m --retries=3 \
    CMD ["/usr/bin/python3", "-I", "/opt/appliance/healthcheck.py"]
# Signals reach the appliance: it drains at SIGTERM and takes the config again at SIGHUP.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/appliance/.venvs/gateway/bin/appliance"]
CMD ["serve"]

FROM runtime AS gpu
# Read by NVIDIA's container toolkit: which GPUs, and no more of the driver than computing needs.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# The one build tool in a final image: at its first start Triton compiles its bridge to the driver (driver.c), and
# without a C compiler and Python's headers there is no engine (triton/runtime/build.py). No C++, no make.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends gcc libc6-dev libpython3-dev \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY --from=build-gpu /opt/appliance/.venvs .venvs
COPY --from=code /opt/appliance .
USER 10001:10001

# The last stage is what a build without --target makes. Environments before code: an update of the appliance
# is then a layer of a megabyte, not of two gigabytes.
FROM runtime AS cpu
# vLLM for the CPU is linked against libnuma, which its package doesn't bring.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY --from=build-cpu /opt/appliance/.venvs .venvs
COPY --from=code /opt/appliance .
USER 10001:10001
