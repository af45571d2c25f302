# The test's two images: a guest (Debian's cloud kernel and the tests' own init, which serves HTTP and fetches on request)
# and an ordinary client.
FROM debian:12-slim AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends busybox-static python3 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN tests/setup/setup.sh kernel && python3 -m contrib.kind.files /out

FROM scratch AS guest
COPY --from=build /out/guest /
ENTRYPOINT ["/unikernel/vmlinuz"]

FROM scratch AS client
COPY --from=build /out/client /
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin
ENTRYPOINT ["/bin/httpd", "-f", "-p", "80", "-h", "/www"]
