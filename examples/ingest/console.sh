#!/usr/bin/env bash
# Sends JSON lines from a file, or from standard input, with the console producer of Kafka's own distribution.
#
#     echo '{"table": "likes", "id": 7, "grad": [0.5, -1]}' | examples/ingest/console.sh localhost:9092
#
# With the broker of docker-compose.yml and no Kafka on this machine:
#     docker compose exec -T kafka /opt/kafka/bin/kafka-console-producer.sh \
#         --bootstrap-server kafka:9092 --topic driftline.ingest < messages.jsonl
set -euo pipefail

brokers=${1:?usage: console.sh BROKERS [TOPIC] [FILE]}
topic=${2:-driftline.ingest}
file=${3:-/dev/stdin}

# One line is one message. The console producer waits for all replicas unless told otherwise.
"${KAFKA_CONSOLE_PRODUCER:-kafka-console-producer.sh}" --bootstrap-server "$brokers" --topic "$topic" <"$file"
