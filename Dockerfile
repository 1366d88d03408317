# syntax=docker/dockerfile:1
# Two stages: a pinned toolchain builds one binary, and a base with nothing but the C library and CA certificates runs it.
ARG RUST_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
WORKDIR /src
# The same sources give the same binary: no path of the builder in it, one codegen unit, the lock file as it stands.
ENV CARGO_INCREMENTAL=0 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
    CARGO_PROFILE_RELEASE_LTO=thin \
    RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
# Dependencies first: this layer changes only with the lock file.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
 && touch src/lib.rs \
 && sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | while read -r name; do echo 'fn main() {}' > "benches/$name.rs"; done \
 && echo 'fn main() {}' > src/main.rs \
 && cargo build --release --locked \
 && rm -r src benches
COPY . .
ARG GEMINID_REVISION=unknown
ARG SOURCE_DATE_EPOCH=0
RUN touch src/lib.rs src/main.rs \
 && GEMINID_REVISION="${GEMINID_REVISION}" GEMINID_RUSTC="$(rustc --version)" cargo build --release --locked --bin geminid \
 && install -D -m 0755 target/release/geminid /out/usr/local/bin/geminid

FROM ${RUNTIME_IMAGE}
ARG GEMINID_REVISION=unknown
ARG GEMINID_VERSION=0.1.0
LABEL org.opencontainers.image.title="geminid" \
      org.opencontainers.image.description="GitOps for Azure IoT Hub device twins" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${GEMINID_VERSION}" \
      org.opencontainers.image.revision="${GEMINID_REVISION}"
COPY --from=build /out/ /
COPY LICENSE /usr/share/doc/geminid/LICENSE
USER 65532:65532
EXPOSE 9797
ENTRYPOINT ["/usr/local/bin/geminid"]
CMD ["run", "--settings", "/etc/geminid/settings.toml"]
