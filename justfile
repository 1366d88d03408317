# What contributors run; `just --list` shows it.

# Everything the checks run.
ci:
    bash .ci/run

# Format, lint, test: before each commit.
check:
    cargo fmt --all --check
    cargo clippy --all-targets --locked -- -D warnings
    cargo test --locked

# The demonstration of the README.
demo:
    cargo run --release -- run --embedded-hub --manifests manifests

# The API documentation.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

# Benchmarks: ratios taken in one run, with machine and commit.
bench:
    cargo bench --locked --bench load
    cargo bench --locked --bench latency
    cargo bench --locked --bench scrape
    cargo bench --locked --bench scale
    cargo bench --locked --bench scale -- https

# geminid beside Microsoft's SDKs, and docs/performance.md anew: a quarter of an hour and more, on an idle machine.
fleet *flags="--write":
    cargo bench --profile dist --locked --bench fleet -- {{flags}}

# Each fuzz target for five minutes, or those named; needs a nightly toolchain and a C++ compiler.
fuzz *targets:
    fuzz/run.sh {{targets}}

# Seeded histories of the reconciler against people, Git, faults and crashes; one alone with GEMINID_SEED=n.
seeds count="20000":
    GEMINID_SEEDS={{count}} cargo test --release --locked --test simulation

# Daemon and hub killed at random for so many minutes.
kills minutes="5":
    GEMINID_KILL_SECONDS=$(({{minutes}} * 60)) cargo test --locked --test faults killed

# Ordinary life and trouble for so many minutes, drawn: target/soak/soak.svg; with --write, docs/soak.md and its picture.
soak minutes="30" *options:
    cargo bench --profile release --locked --bench soak -- --minutes {{minutes}} {{options}}

# The wall clock of the real process set back and forward; needs libfaketime, which it installs.
clock:
    bash tests/clock/run.sh

# The README's pictures of a terminal, from what the real binary prints; needs Python with rich.
pictures:
    cargo build --release --locked
    python3 docs/pictures/draw.py

# What the binary is made of, as CycloneDX: geminid.cdx.json; needs cargo-cyclonedx 0.5.9.
sbom:
    cargo cyclonedx --format json --spec-version 1.5 --no-build-deps

# Licences, sources, doubles and advisories of the dependencies against deny.toml; needs cargo-deny 0.20.2.
deny:
    cargo deny --locked check
