# `make help` lists the targets. PG_CONFIG=/path/to/pg_config chooses another PostgreSQL than the one on PATH.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Every recipe line that needs to know where things are begins with one of these; see scripts/env.sh.
ENV := . scripts/env.sh;
PG := $(ENV) use_postgres;

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##### dependencies

.PHONY: deps deps-build
deps: ## install what this machine lacks for the tests (apt, cargo, pip)
	@scripts/deps test

deps-build:
	@scripts/deps build

##### build and run

.PHONY: build install installcheck demo bench bench-core bench-large bench-batches soak package types-doc clean
build: deps-build ## build the extension in release
	@$(PG) cargo build --release "$${pg_features[@]}"

install: deps-build ## install the extension, in release, into the PostgreSQL of PG_CONFIG
	@$(PG) sudo=(); ((EUID == 0)) || sudo=(--sudo); \
		cargo pgrx install --release --pg-config "$$PG_CONFIG" "$${pg_features[@]}" "$${sudo[@]}"

installcheck: ## run the SQL tests against the server that PGHOST, PGPORT and PGUSER point to
	@scripts/regress sql

demo: install ## archive a table of a million rows on a throw-away cluster
	@scripts/demo

bench: deps install ## our figures against their references, measured in one run (BENCH="--quick", "--only export")
	@scripts/bench $(BENCH)

bench-large: deps install ## planning of 10,000 archived partitions; export of 2 GB and of 20 GB: the same rate and memory
	@scripts/bench --large $(BENCH)

bench-core: deps-build ## the codec without PostgreSQL: encode, decode, prune, digest (criterion)
	@$(ENV) cargo bench --package archive-core --locked

bench-batches: install ## time archives of rows: many objects, batches, merging
	@scripts/cluster run psql -X --quiet --set=ON_ERROR_STOP=1 --file=benches/many_objects.sql
	@scripts/cluster run psql -X --quiet --set=ON_ERROR_STOP=1 --file=benches/batches.sql

soak: install ## pgbench while the worker archives: throughput and latency without and with it, and errors
	@scripts/soak

package: deps-build ## make dist/archive_ext-VERSION-pgNN.tar.gz, to be unpacked at /
	@scripts/package

types-doc: ## write docs/types.md from the table of types
	@$(ENV) ARCHIVE_EXT_WRITE_DOCS=1 cargo test --quiet --package archive-core --locked document

clean: ## remove what the build made of our own crates
	@$(ENV) cargo clean --package archive_ext --package archive-core
	rm -rf dist

##### tests

TESTS := test-core test-pg test-regress test-isolation test-e2e test-majors test-crash test-docs

.PHONY: test fmt-check clippy test-heavy $(TESTS)
test: deps fmt-check clippy $(TESTS) ## everything that CI runs

fmt-check: deps ## formatting, and shellcheck
	@$(ENV) cargo fmt --all --check
	@shellcheck $(filter-out %.py scripts/restore-plain scripts/verify-chain,$(wildcard scripts/*)) .ci/run

clippy: deps ## lints, as errors
	@$(ENV) cargo clippy --package archive-core --all-targets --locked -- -D warnings
	@$(PG) cargo clippy --package archive_ext --all-targets --locked \
		--no-default-features --features "pg$$pg_major pg_test" -- -D warnings
	@$(PG) cargo clippy --package archive_ext --lib --locked \
		--no-default-features --features "pg$$pg_major failpoints" -- -D warnings

.PHONY: fuzz
FUZZ_SECONDS ?= 60
fuzz: ## libFuzzer on what is read from a storage: each target for FUZZ_SECONDS
	@scripts/fuzz $(FUZZ_SECONDS)

test-core: deps ## the pure Rust crate: no PostgreSQL
	@$(ENV) cargo test --package archive-core --locked

test-pg: deps ## #[pg_test]: what one transaction inside the server can prove
	@scripts/test-pg

# `cargo pgrx test` leaves a debug build installed, so what needs the real one installs it again.
test-regress: deps install ## SQL in, text out (tests/pg_regress)
	@scripts/cluster run scripts/regress sql

test-isolation: deps install ## interleaved sessions (tests/isolation)
	@scripts/cluster run scripts/regress isolation

# Most of these tests wait for something: two at a time, of different files.
test-e2e: deps install ## S3 servers, other readers, faults, memory (tests/e2e)
	@scripts/pytest --numprocesses=2 --dist=loadfile tests/e2e

# What agrees in all versions: the others' expected outputs show what a later PostgreSQL prints otherwise.
test-majors: deps install ## to a later PostgreSQL and back: import, pg_dump, pg_upgrade (tests/e2e/test_majors.py)
	@$(PG) PG_CONFIG=$$other_pg_config $(MAKE) --no-print-directory install
	@$(PG) PG_CONFIG=$$other_pg_config scripts/cluster run scripts/regress sql drift refusals surface tree
	@$(PG) PG_CONFIG=$$other_pg_config scripts/cluster run scripts/regress isolation freeze old_snapshot
	@scripts/pytest tests/e2e -m majors

# The same with failpoints (src/failpoint.rs). Whatever needs the real one installs it again.
.PHONY: install-failpoints
install-failpoints: deps-build
	@$(PG) sudo=(); ((EUID == 0)) || sudo=(--sudo); \
		cargo pgrx install --release --pg-config "$$PG_CONFIG" --no-default-features --features "pg$$pg_major failpoints" \
		"$${sudo[@]}"

test-crash: deps install-failpoints ## kill -9 and run again, at every failpoint (tests/crash)
	@scripts/pytest --numprocesses=2 --dist=loadfile tests/crash

.PHONY: torture
torture: deps install-failpoints ## random work, kills and faults beside an oracle (TORTURE_SECONDS=600, TORTURE_SEED=n)
	@scripts/torture

test-heavy: deps install ## what takes long: thousands of random tables, values of 500 MB (ARCHIVE_EXT_CASES=n)
	@scripts/pytest tests/e2e -m heavy

.PHONY: type-matrix
type-matrix: deps install ## archive every type and write docs/type-matrix.md; fails if one value is not exact
	@scripts/pytest tests/e2e/test_types.py -k every_value_comes_back --type-matrix="$(CURDIR)/docs/type-matrix.md"

test-docs: deps install ## run the documentation's SQL, check its links
	@$(ENV) scripts/cluster run "$$test_venv/bin/python" scripts/check_docs.py
