# make            builds the release binary
# make test       unit and integration tests; what a machine lacks is named as not run
# make test-all   those, and the tests that need other programs or minutes
# make soak       the long tests alone, in release
# make lint       format, clippy and rustdoc for every set of features, and the library's dependencies
# make bench-compare   this transport beside etcd's own, in interleaved pairs (an hour; goes on where it was)

CARGO ?= cargo

.PHONY: build test test-all soak lint bench-compare clean

build:
	$(CARGO) build --release --locked

test:
	tests/run

test-all:
	tests/run --all

soak:
	tests/run --soak

lint:
	tests/lint

bench-compare:
	benches/compare.py

clean:
	$(CARGO) clean
