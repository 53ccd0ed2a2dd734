# A worker: vLLM with our two plugins, for CPUs or, with --build-arg EXTRA=gpu, for NVIDIA GPUs.
# Build from the root of the repository:
#   docker build -f k8s/images/worker.Dockerfile -t loragen-worker:0.1.0 .
#   docker build -f k8s/images/worker.Dockerfile --build-arg EXTRA=gpu -t loragen-worker-gpu:0.1.0 .
ARG EXTRA=cpu
FROM python:3.11.14-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9 && uv venv /opt/venv

FROM build AS build-cpu
WORKDIR /src
COPY config/requirements/cpu.lock lock
COPY config/requirements/cpu-excludes.txt excludes
ENV UV_TORCH_BACKEND=cpu

FROM build AS build-gpu
WORKDIR /src
COPY config/requirements/gpu.lock lock
# Nothing to leave out: a GPU has all that vLLM asks for.
RUN touch excludes

FROM build-${EXTRA} AS installed
ARG EXTRA
RUN uv pip install --no-cache --python /opt/venv --constraint lock setuptools
COPY pyproject.toml README.md LICENSE ./
COPY loragen loragen
COPY config config
COPY server server
COPY router_service router_service
COPY workers workers
RUN uv pip install --no-cache --compile-bytecode --python /opt/venv --no-build-isolation \
    --constraint lock --excludes excludes ".[worker-${EXTRA}]"

FROM python:3.11.14-slim-bookworm
# vLLM's CPU library wants libnuma; on a GPU Triton compiles small C files when it starts.
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 libstdc++6 gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=installed /opt/venv /opt/venv
COPY checkpoints/demo /opt/loragen/checkpoints/demo
# PYTHONSAFEPATH: what lies in the working folder is never imported.
ENV PATH=/opt/venv/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /opt/loragen
USER 10001:10001
EXPOSE 8001
CMD ["python", "-m", "workers", "--edge-model", "demo", "--host", "0.0.0.0"]
