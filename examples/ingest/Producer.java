// Sends gradients to driftline as JSON, from Java 17 or newer.
//
//     java -cp "kafka/*" Producer.java localhost:9092 driftline.ingest likes
//
// On the class path: kafka-clients and what it needs, here the jars that `make tools` fetches.

import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

public class Producer {
    private static final int STEPS = 100;

    public static void main(String[] args) throws ExecutionException, InterruptedException {
        if (args.length != 3) {
            System.err.println("usage: Producer BROKERS TOPIC TABLE");
            System.exit(2);
        }
        String brokers = args[0], topic = args[1], table = args[2];

        // KafkaProducer is idempotent and waits for all replicas unless told otherwise.
        Map<String, Object> settings = Map.of("bootstrap.servers", brokers);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            Future<RecordMetadata> sent = null;
            for (int step = 0; step < STEPS; step++) {
                String message = gradients(
                        table, new long[] {step % 10, -1L}, new float[][] {{0.5f, -1f}, {0.1f, 3e-4f}});
                // Messages with the same key stay in order: they go to one partition.
                sent = producer.send(new ProducerRecord<>(topic, "trainer-7", message));
            }
            producer.flush();
            sent.get(); // raises what went wrong
        }
        System.out.println(STEPS + " messages sent");
    }

    /** One gradient per id. Ids are unsigned: the long -1 is 18446744073709551615. */
    private static String gradients(String table, long[] ids, float[][] grads) {
        var numbers = new StringBuilder();
        var rows = new StringBuilder();
        for (int i = 0; i < ids.length; i++) {
            numbers.append(i == 0 ? "" : ", ").append(Long.toUnsignedString(ids[i]));
            rows.append(i == 0 ? "" : ", ").append(java.util.Arrays.toString(grads[i]));
        }
        return String.format(
                Locale.ROOT, "{\"table\": \"%s\", \"ids\": [%s], \"grads\": [%s]}", table, numbers, rows);
    }
}
