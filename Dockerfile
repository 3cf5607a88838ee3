# One image for each Python, tagged with it: an application's compiled packages fit only one.
# 3.13 is the newest that this package declares; its requirements have wheels up to 3.15.
ARG PYTHON_VERSION=3.13
ARG BASE_IMAGE=python:${PYTHON_VERSION}-slim


FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# pip lives in an environment beside ours, so that it does not get into ours.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/flask-migrate
COPY requirements.txt requirements-build.txt /source/
# A build behind a proxy that inspects TLS passes its bundle of authorities as the secret `ca`.
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi && \
    /opt/build/bin/pip install --require-hashes -r /source/requirements-build.txt && \
    /opt/build/bin/pip --python /opt/flask-migrate/bin/python3 install \
        --no-compile --no-deps --only-binary :all: --require-hashes -r /source/requirements.txt
COPY . /source
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index -w /wheel /source && \
    /opt/build/bin/pip --python /opt/flask-migrate/bin/python3 install \
        --no-compile --no-deps --no-index /wheel/*.whl
# No run imports these test helpers. Byte code that is named by hash and never checked stays valid
# whatever a registry or a COPY does to the times of files.
RUN rm -rf /opt/flask-migrate/lib/python3*/site-packages/sqlalchemy/testing \
        /opt/flask-migrate/lib/python3*/site-packages/alembic/testing && \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/flask-migrate/lib


FROM ${BASE_IMAGE}
# Official images hold no byte code of the standard library: a user who may not write would compile
# what a run imports at each start. What installs packages goes: nothing is installed any more.
RUN STDLIB=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') && \
    rm -rf "$STDLIB/ensurepip" /usr/share/python-wheels /usr/local/bin/pip* /usr/bin/pip* && \
    for PACKAGES in "$STDLIB/site-packages" /usr/lib/python3/dist-packages; do \
        rm -rf "$PACKAGES"/pip "$PACKAGES"/pip-* "$PACKAGES"/setuptools "$PACKAGES"/setuptools-* \
            "$PACKAGES"/wheel "$PACKAGES"/wheel-* "$PACKAGES"/pkg_resources \
            "$PACKAGES"/_distutils_hack "$PACKAGES"/distutils-precedence.pth; \
    done && \
    UNUSED='tests?|idlelib|tkinter|turtledemo|distutils|lib2to3|pydoc_data|(site|dist)-packages' && \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -x "/($UNUSED)/" "$STDLIB"
COPY --from=build /opt/flask-migrate /opt/flask-migrate
# No byte code is written beside the application's files, which may be anybody's working tree.
ENV PATH=/opt/flask-migrate/bin:$PATH PYTHONDONTWRITEBYTECODE=1
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="flask-migrate-sidecar" \
      org.opencontainers.image.description="Runs the database migrations of a Flask application" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="$BASE_IMAGE"
# Any other user will do as well; group 0 is what OpenShift gives to its random ones.
USER 65532:0
WORKDIR /app
ENTRYPOINT ["flask-migrate"]
