#!/usr/bin/env bash
# Install the system packages that `make test` needs and this machine lacks (Debian and Ubuntu).
# Quick and silent when all is there. On other systems it names what is missing.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1; }

# The Python that `make` picks: the first that runs and is of a version supported.
find_python() {
    local python
    for python in python3.12 python3.11 python3.13 python3; do
        if "$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
            2>/dev/null; then echo "$python"; return 0; fi
    done
    return 1
}

python_runs() { find_python >/dev/null; }

# hnswlib is compiled against them.
headers_there() {
    local python
    python=$(find_python) || return 1
    "$python" -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))'
}

# Kafka 4 needs Java 17; `java -version` answers "17.0.15", "21.0.2", "1.8.0_402".
java_runs() {
    local version
    version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || return 1
    [ "${version:-0}" -ge 17 ]
}

# A JRE alone runs the broker, but not examples/ingest/Producer.java.
jdk_there() { java --list-modules 2>/dev/null | grep -q '^jdk.compiler@'; }

# examples/ingest/go.mod; `go version` answers "go version go1.19.8 linux/amd64".
go_runs() {
    local version
    version=$(go version 2>/dev/null | sed -n 's/^go version go1\.\([0-9]*\).*/\1/p') || return 1
    [ "${version:-0}" -ge 19 ]
}

compiler_runs() { have c++ && have make; }

missing=()
python_runs || missing+=(python3 python3-venv)
headers_there || missing+=(python3-dev)
{ java_runs && jdk_there; } || missing+=(openjdk-17-jdk-headless)
go_runs || missing+=(golang-go)
have mvn || missing+=(maven)
have redis-server || missing+=(redis-server)
{ have chromium || have chromium-browser || have google-chrome; } || missing+=(chromium) # looks at `driftline report`
have redis-cli || missing+=(redis-tools) # what `driftline where` prints is for it
compiler_runs || missing+=(build-essential)
[ ${#missing[@]} -eq 0 ] && exit 0

if ! have apt-get; then
    echo "missing on this machine: ${missing[*]} (Debian's names); install them and run again" >&2
    exit 1
fi
root=()
if [ "$(id -u)" -ne 0 ]; then root=(sudo); fi
echo "installing: ${missing[*]}"
"${root[@]}" apt-get update -qq
# Newer releases have a newer Java only.
for i in "${!missing[@]}"; do
    if [ "${missing[i]}" = openjdk-17-jdk-headless ] && ! apt-cache show openjdk-17-jdk-headless >/dev/null 2>&1; then
        missing[i]=default-jdk-headless
    fi
done
# RUNLEVEL=1: the package's own Redis service is not wanted, only its program.
"${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
python_runs || { echo "no Python 3.11 to 3.13 on this machine, and the distribution has none" >&2; exit 1; }
{ java_runs && jdk_there; } || { echo "the java on PATH is no JDK 17 or newer: put one first on PATH" >&2; exit 1; }
go_runs || { echo "the go on PATH is older than 1.19: put a newer one first on PATH" >&2; exit 1; }
