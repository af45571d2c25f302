# A node of kind with this shim on it, put there by the installer as it would put it on any node, and with what runs and
# feeds guests. Nothing is started in the build: the node's systemd does that when it boots.
ARG NODE=kindest/node:v1.37.0
ARG INSTALLER=unikernel-shim-installer:kind

# hadolint ignore=DL3006
FROM ${INSTALLER} AS installer

# hadolint ignore=DL3006
FROM ${NODE}
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends qemu-system-x86 squashfs-tools xorriso \
    && rm -rf /var/lib/apt/lists/*
COPY --from=installer /opt/unikernel-shim/versions /opt/unikernel-shim/versions
RUN --mount=type=bind,from=installer,source=/usr/share/unikernel-shim,target=/mnt/installer \
    PYTHONPATH=/mnt/installer /opt/unikernel-shim/versions/kind/venv/bin/python -m contrib.kubernetes.installer --root / install
