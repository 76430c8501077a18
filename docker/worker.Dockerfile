# One image for Dataflow's workers and for the launcher of the Flex Template. Built from the top of the repository:
#   docker build --file docker/worker.Dockerfile --tag REGISTRY/scenebeam/worker:TAG .
# The version of Beam here is that of docker/worker.lock; a test holds the two against each other.
FROM apache/beam_python3.11_sdk:2.77.0 AS beam

# One static program is taken out of it, whose versions are dates: pin the digest that you have tried.
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
    && python -c "import scenebeam.run.engine, scenebeam.cloud.template"

COPY docker/launch.py ./
# Workers start with all that they need: nothing is installed when they come up.
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/app/launch.py

# Dataflow starts its workers' processes as root, and the launcher writes below /template: no other user here.
ENTRYPOINT ["/opt/apache/beam/boot"]
