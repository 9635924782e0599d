// Sends gradients to driftline as JSON, from Go.
//
//	go run producer.go localhost:9092 driftline.ingest likes
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Gradients is a message: one gradient per id. An id given twice counts as their sum.
type Gradients struct {
	Table string      `json:"table"`
	IDs   []uint64    `json:"ids"`
	Grads [][]float32 `json:"grads"`
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: producer BROKERS TOPIC TABLE")
	}
	brokers, topic, table := os.Args[1], os.Args[2], os.Args[3]

	// franz-go is idempotent and waits for all replicas unless told otherwise.
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.DefaultProduceTopic(topic))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	const steps = 100
	for step := 0; step < steps; step++ {
		value, err := json.Marshal(Gradients{
			Table: table,
			IDs:   []uint64{uint64(step % 10), 18446744073709551615},
			Grads: [][]float32{{0.5, -1}, {0.1, 3e-4}},
		})
		if err != nil {
			log.Fatal(err)
		}
		// Messages with the same key stay in order: they go to one partition.
		record := &kgo.Record{Key: []byte("trainer-7"), Value: value}
		client.Produce(context.Background(), record, func(_ *kgo.Record, err error) {
			if err != nil {
				log.Fatal(err)
			}
		})
	}
	if err := client.Flush(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(steps, "messages sent")
}
