# One image for the three functions; FUNCTION_TARGET selects one of them.
# Build it from the root of the repository:
#   docker build --file docker/functions.Dockerfile --tag REGISTRY/scenebeam/functions:TAG .
FROM python:3.11-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PORT=8080

RUN useradd --create-home --uid 10001 scenebeam
WORKDIR /app

COPY functions/requirements.lock ./
RUN pip install --require-hashes --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY pipelines ./pipelines
RUN pip install --no-deps .

COPY functions/main.py ./
USER 10001

EXPOSE 8080
# The framework serves the target with gunicorn. PORT and FUNCTION_TARGET come from the environment.
CMD ["functions-framework", "--source", "main.py"]
