#!/bin/bash
# build.sh VERSION OUTFILE: builds etcd's own rafthttp as the other end of a benchmark, VERSION one of 3.5.35 3.6.16 3.7.3.
# Needs Go and its module proxy; does nothing when OUTFILE is newer than its sources.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=${1:?which etcd version}
out=$(realpath -m "${2:?where to}")
minor=${version#3.}
minor=${minor%%.*}
api=$here/v3$minor/api.go
if [ -x "$out" ] && [ "$out" -nt "$here/main.go" ] && [ "$out" -nt "$api" ]; then
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$(dirname "$out")"
cp "$here/main.go" "$api" "$work"
cd "$work"
{
    go mod init gobench
    go get "go.etcd.io/etcd/server/v3@v$version"
    go mod tidy
} 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
go build -o "$out" .
