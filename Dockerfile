# grndist with Ray: for one machine and for KubeRay.
#
#   docker build --build-arg VARIANT=cpu --tag grndist:cpu .          # or VARIANT=cuda
#   docker run --rm --init --user "$(id -u):$(id -g)" --shm-size=2g --volume "$PWD:/work" grndist:cpu train run.yaml
#
# Of MLflow it has what a tracking server needs (tracking.uri); without one a run's numbers wait in its tracking-spool.
# BASE by tag gets the patches of Debian and Python; an image that is always the same takes BASE=python@sha256:...
ARG BASE=python:3.11-slim-trixie
ARG VARIANT=cpu

FROM ${BASE} AS environment
WORKDIR /build
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/grndist

FROM environment AS torch-cpu
RUN pip --python /opt/grndist/bin/python install --no-cache-dir --no-deps --constraint requirements.lock \
    --index-url https://download.pytorch.org/whl/cpu torch

FROM environment AS torch-cuda
RUN pip --python /opt/grndist/bin/python install --no-cache-dir --no-deps --constraint requirements.lock torch

# hadolint ignore=DL3006
FROM torch-${VARIANT} AS installed
COPY . /build/
RUN pip --python /opt/grndist/bin/python install --no-cache-dir --constraint requirements.lock '.[cluster,excel]'

FROM ${BASE}
LABEL org.opencontainers.image.title="grndist" \
      org.opencontainers.image.description="Gene regulatory networks from single-cell expression and Perturb-seq" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN pip uninstall --yes setuptools wheel pip
# Open like /tmp, so that `docker run --user` and Kubernetes may choose another number for the user.
RUN groupadd --gid 1000 grndist && useradd --uid 1000 --gid grndist --no-create-home grndist && \
    install --directory --mode 1777 /home/grndist /work
COPY --from=installed /opt/grndist /opt/grndist
# A token is asked of everyone who joins the Ray cluster or uses it; neither Ray nor MLflow reports on its users.
ENV PATH=/opt/grndist/bin:$PATH HOME=/home/grndist PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
# By number, so that Kubernetes can see that it is not root.
USER 1000:1000
WORKDIR /work
# Commands end by themselves, and KubeRay asks Ray how it is.
HEALTHCHECK NONE
ENTRYPOINT ["grndist"]
CMD ["--help"]
