# The generator, for the head and the workers of KubeRay's Ray cluster, which brings the command.
# Build from the root of the repository:
#   docker build -f k8s/images/router_service.Dockerfile -t loragen-router-service:0.1.0 .
FROM python:3.11.14-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9 && uv venv /opt/venv
WORKDIR /src
COPY config/requirements/cpu.lock lock
COPY config/requirements/cpu-excludes.txt excludes
RUN uv pip install --no-cache --python /opt/venv --constraint lock setuptools
COPY pyproject.toml README.md LICENSE ./
COPY loragen loragen
COPY config config
COPY server server
COPY router_service router_service
COPY workers workers
RUN uv pip install --no-cache --compile-bytecode --python /opt/venv --no-build-isolation \
    --constraint lock --excludes excludes --torch-backend cpu ".[generator]"

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/venv /opt/venv
COPY checkpoints/demo /opt/loragen/checkpoints/demo
# PYTHONSAFEPATH: what lies in the working folder is never imported.
ENV PATH=/opt/venv/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /opt/loragen
USER 10001:10001
EXPOSE 8100 8080
CMD ["python", "-m", "router_service"]
