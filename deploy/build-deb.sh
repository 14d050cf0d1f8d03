#!/bin/sh
# Builds the Debian package: needs cargo-deb (cargo install --locked cargo-deb) and dpkg-dev. Arguments go to cargo-deb.
set -eu
cd -- "$(dirname -- "$0")/.."
target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked --bins
cargo run --quiet --locked --example dist -- "$target/release/dist"
gzip -9nf "$target"/release/dist/man/*.1
exec cargo deb --no-build --locked "$@"
