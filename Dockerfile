# trackd as an image: the wheel is built in one stage and installed, hashes checked, in the next.
#
# The steps themselves are in scripts/image.sh, so that `make image-check` can run the same ones
# where no container engine is at hand.
#
#   docker build -t trackd .
#   docker run -v trackd-data:/data trackd
#
# As everywhere, it listens on loopback only until it is told otherwise; for a port published to this machine:
#   docker run -v trackd-data:/data -p 127.0.0.1:50551:50551 trackd serve --grpc 0.0.0.0:50551 --unsafe-plaintext

# Not the slim one: it holds a C compiler, for the hot loops.
FROM python:3.11 AS build
ENV TRACKD_REQUIRE_COMPILED=1
WORKDIR /src
COPY requirements/build.txt requirements/
COPY pyproject.toml LICENSE README.md ./
COPY scripts/image.sh scripts/build_hook.py scripts/
COPY src/ src/
RUN scripts/image.sh wheel /dist

FROM python:3.11-slim
WORKDIR /app
COPY requirements/runtime.txt requirements/
COPY scripts/image.sh scripts/
COPY --from=build /dist/ /dist/
RUN scripts/image.sh install /dist /opt/trackd \
    && rm -rf /dist \
    && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin trackd \
    && install --directory --owner=trackd --group=trackd --mode=0700 /data /keys

ENV PATH=/opt/trackd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TRACKD_DATA=/data \
    GRPC_ENABLE_FORK_SUPPORT=0

USER trackd
WORKDIR /data
VOLUME /data
# /keys is for the key of the endpoints' secrets (--secrets-key-file /keys/secrets.key), which must not lie with
# the data. No volume by itself: a key in one without a name would be gone with the container.
# gRPC, metrics, HTTP
EXPOSE 50551 9551 8551
# SIGTERM is an orderly shutdown: what was accepted is flushed and answered, then the store is closed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["trackd", "health"]
# RocksDB creates its files 0644: the umask keeps them from everybody else.
ENTRYPOINT ["/bin/sh", "-c", "umask 077 && exec trackd \"$@\"", "trackd"]
CMD ["serve"]
