package main

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"golang.org/x/sync/errgroup"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// topic reads what the topic holds.
type topic interface {
	// follow gives every message of a partition to visit, from the first on and in the topic's order, until ctx ends.
	follow(ctx context.Context, partition int, visit func(message)) error
	// read returns all that a partition holds.
	read(ctx context.Context, partition int) ([]message, error)
}

// readBack reads the whole topic anew, by partition.
func readBack(ctx context.Context, t topic) ([][]message, error) {
	all := make([][]message, partitions)
	reads, ctx := errgroup.WithContext(ctx)
	for partition := range all {
		reads.Go(func() (err error) {
			all[partition], err = t.read(ctx, partition)
			return err
		})
	}
	return all, reads.Wait()
}

func partitionName(partition int) string {
	return fmt.Sprintf("persistent://%s-partition-%d", topicName, partition)
}

// realTopic reads with Pulsar's own client.
type realTopic struct{ client pulsar.Client }

func newRealTopic(url string) (*realTopic, error) {
	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: url, Logger: log.DefaultNopLogger()})
	if err != nil {
		return nil, fmt.Errorf("connecting to Pulsar: %w", err)
	}
	return &realTopic{client}, nil
}

func (t *realTopic) close() { t.client.Close() }

func (t *realTopic) reader(partition int) (pulsar.Reader, error) {
	r, err := t.client.CreateReader(pulsar.ReaderOptions{Topic: partitionName(partition), StartMessageID: pulsar.EarliestMessageID()})
	if err != nil {
		return nil, fmt.Errorf("opening a reader of partition %d: %w", partition, err)
	}
	return r, nil
}

func (t *realTopic) follow(ctx context.Context, partition int, visit func(message)) error {
	r, err := t.reader(partition)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		m, err := r.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("following partition %d: %w", partition, err)
		}
		visit(fromReader(m))
	}
}

func (t *realTopic) read(ctx context.Context, partition int) ([]message, error) {
	r, err := t.reader(partition)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var all []message
	for r.HasNext() {
		m, err := r.Next(ctx)
		if err != nil {
			return nil, fmt.Errorf("reading partition %d: %w", partition, err)
		}
		all = append(all, fromReader(m))
	}
	// HasNext answers false to errors too, and a partition that was read in half would look like a loss.
	if _, err := r.GetLastMessageID(); err != nil {
		return nil, fmt.Errorf("asking for the end of partition %d: %w", partition, err)
	}
	return all, nil
}

func fromReader(m pulsar.Message) message {
	return message{Key: m.Key(), Payload: m.Payload(), Properties: m.Properties()}
}

// embeddedTopic reads from the stand-in's memory: it has no consumers.
type embeddedTopic struct{ broker *pulsartest.Broker }

func (t *embeddedTopic) read(_ context.Context, partition int) ([]message, error) {
	stored := t.broker.Messages(partitionName(partition))
	all := make([]message, len(stored))
	for i := range stored {
		all[i] = message{Key: stored[i].Key, Payload: stored[i].Payload, Properties: stored[i].Properties}
	}
	return all, nil
}

func (t *embeddedTopic) follow(ctx context.Context, partition int, visit func(message)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for seen := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if t.broker.Counters(partitionName(partition)).Messages == seen {
			continue
		}
		all, err := t.read(ctx, partition)
		if err != nil {
			return err
		}
		for _, m := range all[seen:] {
			visit(m)
		}
		seen = len(all)
	}
}
