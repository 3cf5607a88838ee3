# The image of an application with the sidecar copied into it: one image serves and migrates. Both
# must be made for the same Python.
#
#     docker build -t shop -f tests/container/derived/ours-in-theirs.Dockerfile tests
#     docker run shop                                                  serves
#     docker run shop /opt/flask-migrate/bin/flask-migrate db upgrade  migrates
ARG PYTHON_VERSION=3.13
ARG BASE_IMAGE=python:${PYTHON_VERSION}-slim
ARG SIDECAR_IMAGE=flask-migrate-sidecar:${PYTHON_VERSION}

# COPY takes no build argument for an image, but a stage.
FROM ${SIDECAR_IMAGE} AS sidecar

FROM ${BASE_IMAGE}
COPY container/derived/requirements.txt /app/
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi && \
    python3 -m venv /opt/shop && \
    /opt/shop/bin/pip install --no-cache-dir -r /app/requirements.txt
COPY --from=sidecar /opt/flask-migrate /opt/flask-migrate
COPY apps/shop /app
ENV PATH=/opt/shop/bin:$PATH MIGRATE_SITE_PACKAGES=/opt/shop
USER 65532:0
WORKDIR /app
CMD ["flask", "run", "--host=0.0.0.0"]
