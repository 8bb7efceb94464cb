# shellcheck shell=bash disable=SC2034
# Sourced by the Makefile's recipes and by the scripts beside it: which PostgreSQL, which caches, who we are.

set -euo pipefail

# pgrx would append a backtrace to the DETAIL of errors.
unset RUST_BACKTRACE

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

as_root() {
	if ((EUID == 0)); then "$@"; else sudo -- "$@"; fi
}

# PostgreSQL refuses to run as root, so clusters belong to the OS user that Debian's packages create. That user may
# not be able to enter our working directory.
as_postgres() {
	(cd / && as_root runuser -u postgres -- "$@")
}

# Not below /root: nobody else may enter it, the postgres user who runs what is built here included.
if [[ -n ${XDG_CACHE_HOME:-} ]]; then
	cache=$XDG_CACHE_HOME/archive_ext
elif ((EUID == 0)); then
	cache=/var/cache/archive_ext
else
	cache=$HOME/.cache/archive_ext
fi
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
tools=$cache/tools
test_venv=$cache/venv/test
s3_venv=$cache/venv/s3
moto_venv=$cache/venv/moto
export PATH=$tools/bin:$HOME/.cargo/bin:$PATH

# A pg_config we can build against has the server's headers and the server beside it.
usable_pg_config() {
	local include bin
	include=$("$1" --includedir-server 2>/dev/null) && bin=$("$1" --bindir 2>/dev/null) || return 1
	[[ -f $include/postgres.h && -x $bin/postgres ]]
}

find_pg_config() {
	local candidate candidates
	if [[ -n ${PG_CONFIG:-} ]]; then
		candidates=("$PG_CONFIG")
	else
		mapfile -t candidates < <(
			command -v pg_config
			printf '%s\n' /usr/lib/postgresql/*/bin/pg_config | sort --version-sort --reverse
		)
	fi
	for candidate in "${candidates[@]}"; do
		if usable_pg_config "$candidate"; then
			command -v "$candidate"
			return
		fi
	done
	return 1
}

# Sets PG_CONFIG, pg_major, pg_bin, pg_features, and other_major and other_pg_config: a later version, which archives and
# databases are moved to in tests/e2e/test_majors.py and which scripts/other-postgresql unpacks. Fails with the remedy where there is nothing to build against.
use_postgres() {
	PG_CONFIG=$(find_pg_config) || die "no pg_config with server headers: run 'make deps', or set PG_CONFIG"
	export PG_CONFIG
	pg_major=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
	pg_bin=$("$PG_CONFIG" --bindir)
	pg_features=(--no-default-features --features "pg$pg_major")
	other_major=17
	((pg_major < other_major)) || other_major=18
	other_pg_config=$cache/postgresql/$other_major/usr/lib/postgresql/$other_major/bin/pg_config
}
