# A migration image of an application, made from the sidecar's: the application's packages lie in
# /app/.venv, where the sidecar finds them, and go before its own.
#
#     docker build -f tests/container/derived/from-ours.Dockerfile tests
ARG PYTHON_VERSION=3.13
ARG BASE_IMAGE=python:${PYTHON_VERSION}-slim
ARG SIDECAR_IMAGE=flask-migrate-sidecar:${PYTHON_VERSION}

FROM ${BASE_IMAGE} AS packages
COPY container/derived/requirements.txt /app/
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi && \
    python3 -m venv /app/.venv && \
    /app/.venv/bin/pip install --no-cache-dir -r /app/requirements.txt

FROM ${SIDECAR_IMAGE}
COPY --from=packages /app /app
COPY apps/shop /app
CMD ["db", "upgrade"]
