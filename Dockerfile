# syntax=docker/dockerfile:1
# Two stages: a pinned toolchain builds one binary, and an empty image takes it with the C library and CA certificates of
# the same Debian. Nothing else is in it: no shell, no package manager, nothing to be root with.
ARG RUST_IMAGE=rust:1.95-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /src
# The same sources give the same binary: no path of the builder in it, the lock file as it stands, the profile `dist`.
ENV CARGO_INCREMENTAL=0 \
    RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
# Dependencies first: this layer changes only with the manifest and the lock file.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
 && touch src/lib.rs \
 && sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | while read -r name; do echo 'fn main() {}' > "benches/$name.rs"; done \
 && echo 'fn main() {}' > src/main.rs \
 && cargo build --profile dist --locked --bin geminid \
 && rm -r src benches
COPY . .
ARG GEMINID_REVISION=unknown
# The stubs above are younger than the sources.
RUN touch src/lib.rs src/main.rs \
 && GEMINID_REVISION="${GEMINID_REVISION}" GEMINID_RUSTC="$(rustc --version)" cargo build --profile dist --locked --bin geminid \
 && bash deploy/image/root.sh target/dist/geminid /out /own

FROM scratch
ARG GEMINID_REVISION=unknown
ARG GEMINID_VERSION=0.1.0
LABEL org.opencontainers.image.title="geminid" \
      org.opencontainers.image.description="GitOps for Azure IoT Hub device twins" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${GEMINID_VERSION}" \
      org.opencontainers.image.revision="${GEMINID_REVISION}"
COPY --from=build /out/ /
# The one place that may be written to, where a volume is mounted on it: an audit log, an embedded hub.
COPY --from=build --chown=65532:65532 /own/ /var/lib/
USER 65532:65532
EXPOSE 9797
ENTRYPOINT ["/usr/local/bin/geminid"]
CMD ["run", "--settings", "/etc/geminid/settings.toml"]
