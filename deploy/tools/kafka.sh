#!/usr/bin/env bash
# Copy the jars of a Kafka broker (deploy/kafka/pom.xml) into the folder given. Needs Maven.
set -euo pipefail

target=$1
here=$(cd "$(dirname "$0")/.." && pwd)
fresh=$target.new
rm -rf "$fresh"
mkdir -p "$fresh"
# The filter: Maven resets the terminal's colours even where there is no terminal.
mvn -q -B -Dstyle.color=never -f "$here/kafka/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$fresh" 2>&1 | sed $'s/\e\\[0m//g'
# Only a whole set of jars ever stands under the final name.
rm -rf "$target"
mv "$fresh" "$target"
