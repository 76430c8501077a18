# One image for the workers of Dataflow and of clusters, and for the launcher of the Flex Template.
# With the argument --worker_pool, it is a worker pool on port 50000 (see docs/clusters.md).
# Build it from the root of the repository:
#   docker build --file docker/worker.Dockerfile --tag REGISTRY/scenebeam/worker:TAG .
# Beam's version must be the one in docker/worker.lock; tests/cloud/test_images.py compares the two.
FROM apache/beam_python3.11_sdk:2.77.0 AS beam

# Only a static binary is copied from this image. Its tags are dates: pin the digest you tested.
# hadolint ignore=DL3007
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:latest AS launcher

FROM python:3.11-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher

WORKDIR /app

COPY docker/worker.lock ./
RUN pip install --require-hashes --requirement worker.lock

COPY pyproject.toml README.md LICENSE ./
COPY pipelines ./pipelines
RUN pip install --no-deps . \
    && python -c "import scenebeam.execution.engine, scenebeam.cloud.template"

COPY docker/launch.py ./
# The image contains all dependencies, so workers install nothing at startup, and need no virtual
# environment of their own, which Beam would create for each.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/app/launch.py

# No USER: Dataflow starts worker processes as root, and the launcher writes below /template.
ENTRYPOINT ["/opt/apache/beam/boot"]
