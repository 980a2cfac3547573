# make            builds the release binary
# make test       the tests that fit in a quarter of an hour; what a machine lacks is named as not run
# make test-all   all of them, up to 90 minutes; what passed on this very tree is not run again
# make test-fresh     make test in a root made of Debian's base system, as on a new machine: before a release, as root
# make test-cluster   the chart on a real API server: a quarter of an hour, and ten minutes more to build it the first time
# make simulate   simulated members, faults and clients: SEEDS=1000 (the seeds from 1), or SEED=17 TRACE=1 for one in words
# make bugs       bugs that were put in on purpose, and the seed that finds each: half an hour
# make fuzz       libFuzzer on the code that reads what strangers send, minutes: FUZZ=TARGET for one, FUZZ_SECONDS=600 for longer
# make mutants    bugs that a program puts in, one at a time, and whether the tests see them: many hours, and goes on where it was
# make soak       the long tests alone, in release
# make lint       format, clippy and rustdoc for every set of features, and the library's dependencies
# make bench-compare   this transport beside etcd's own, in interleaved pairs (two hours; goes on where it was)
# make bench-writes    writes to three members beside etcd's, in interleaved pairs (25 minutes; goes on where it was)
# make bench-growth    the same by size, window and peers, and scrapes (half an hour; goes on where it was)

CARGO ?= cargo

.PHONY: build test test-all test-fresh test-cluster simulate bugs fuzz mutants soak lint bench-compare bench-writes bench-growth clean

build:
	$(CARGO) build --release --locked

test:
	tests/run

test-all:
	tests/run --all

test-fresh:
	tests/fresh

test-cluster:
	tests/kubernetes/test-cluster

SEEDS ?= 1000

simulate:
	$(CARGO) test --locked --profile simulation --no-default-features --features node --test simulation -- \
		$(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(if $(TRACE),--trace)

bugs:
	tests/simulation/bugs/run

fuzz:
	fuzz/run $(FUZZ)

mutants:
	tests/mutants

soak:
	tests/run --soak

lint:
	tests/lint

bench-compare:
	benches/compare.py

bench-writes:
	benches/writes.py

bench-growth:
	benches/growth.py

clean:
	$(CARGO) clean
