package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	pulsarlog "github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
)

// roleSender is a process that sends messages from memory to a topic for as long as it lives, in one of three ways.
const roleSender = "sender"

// The ways to send.
const (
	sendOurs     = "output"   // the pulsar output, as Benthos runs it
	sendClient   = "client"   // the Pulsar client alone: SendAsync, and nothing that happens with the receipts
	sendBlocking = "blocking" // one blocking Send per message, in 64 goroutines: what other outputs do
)

const (
	senderBatch   = 1000 // messages in a batch of the output
	senderShards  = 8    // batches in flight
	senderKeys    = 64   // of each shard
	senderSize    = 1024 // bytes
	senderAtOnce  = 64   // blocking Sends
	senderPending = 8192 // messages that the client alone may have in flight for each partition, as the output's have
)

// askConfirmed is the path at which a sender tells how many messages were confirmed.
const askConfirmed = "/confirmed"

// runSender ends with its input, with ctx, or with the first error.
func runSender(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	s := &sender{}
	flags := flag.NewFlagSet(roleSender, flag.ContinueOnError)
	way := flags.String("way", sendOurs, "")
	flags.StringVar(&s.url, "pulsar", "", "")
	flags.StringVar(&s.topic, "topic", topicName, "")
	flags.StringVar(&s.compression, "compression", "none", "")
	flags.BoolVar(&s.properties, "properties", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	http.HandleFunc(askConfirmed, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s.confirmed.Load()) })
	go func() { _ = http.Serve(listener, nil) }() // ends with the listener
	if err := json.NewEncoder(out).Encode("http://" + listener.Addr().String()); err != nil {
		return err
	}
	send := map[string]func(context.Context) error{sendOurs: s.ours, sendClient: s.client, sendBlocking: s.blocking}[*way]
	if send == nil {
		return fmt.Errorf("unknown way %q", *way)
	}
	if err := send(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// sender is what all ways have in common: the same messages, made before anything is measured and sent again and again.
type sender struct {
	url, topic  string
	compression string
	properties  bool
	confirmed   atomic.Uint64
}

// messages makes one shard's batch: text that compresses to about half, as JSON with identifiers in it does.
func (s *sender) messages(shard int) []pulsar.ProducerMessage {
	random := rand.New(rand.NewPCG(uint64(shard), 0))
	messages := make([]pulsar.ProducerMessage, senderBatch)
	for i := range messages {
		payload := make([]byte, senderSize)
		for k := range payload {
			payload[k] = "0123456789abcdef"[random.IntN(16)]
		}
		m := pulsar.ProducerMessage{Payload: payload, Key: fmt.Sprintf("customer-%d-%d", shard, i%senderKeys)}
		if s.properties {
			m.Properties = map[string]string{
				"kinesis.arrival.timestamp": "2026-01-01T00:00:00.000Z",
				"kinesis.encryption.type":   "NONE",
				"kinesis.partition.key":     m.Key,
				"kinesis.sequence.number":   fmt.Sprintf("4959033827149025660855969253836157109592157598913%07d", i),
			}
		}
		messages[i] = m
	}
	return messages
}

// ours writes batches to the output, each again when it was confirmed, as shards do that always have more.
func (s *sender) ours(ctx context.Context) error {
	const field = "output"
	spec := service.NewConfigSpec().Field(service.NewOutputField(field))
	yaml := fmt.Sprintf("output: { pulsar: { url: %q, topic: %q, compression: %s } }", s.url, s.topic, s.compression)
	parsed, err := spec.ParseYAML(yaml, nil)
	if err != nil {
		return err
	}
	out, err := parsed.FieldOutput(field)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close(context.Background()) }()
	fence := attempt.NewFence(attempt.BootClock, attempt.BootClock()+24*time.Hour)
	return s.each(ctx, senderShards, func(ctx context.Context, shard int) error {
		a := attempt.New(fmt.Sprint("shard-", shard), fence, senderBatch)
		batch := make(service.MessageBatch, senderBatch)
		for i, m := range s.messages(shard) {
			batch[i] = service.NewMessageWithContext(a.Context(context.Background()), m.Payload)
			batch[i].MetaSetMut("pulsar_key", m.Key)
			batch[i].MetaSetMut(attempt.RecordIDKey, a.ID(i))
			for name, value := range m.Properties {
				batch[i].MetaSetMut(name, value)
			}
		}
		for ctx.Err() == nil {
			if err := out.WriteBatch(ctx, batch); err != nil {
				return err
			}
			s.confirmed.Add(senderBatch)
		}
		return nil
	})
}

// producer is one of the client alone. Nobody closes it, the process just ends: the client closes a producer while there are
// still messages to be sent on its way, which a broker takes for a fault.
func (s *sender) producer() (pulsar.Producer, error) {
	client, err := pulsar.NewClient(pulsar.ClientOptions{
		URL: s.url, MemoryLimitBytes: -1,
		Logger: pulsarlog.NewLoggerWithSlog(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))),
		// As the output has it: a registry of its own, without a series for each topic.
		MetricsRegisterer: prometheus.NewRegistry(), MetricsCardinality: pulsar.MetricsCardinalityNone,
	})
	if err != nil {
		return nil, err
	}
	options := pulsar.ProducerOptions{Topic: s.topic, HashingScheme: pulsar.Murmur3_32Hash, SendTimeout: -1, MaxPendingMessages: senderPending}
	if s.compression == "lz4" {
		options.CompressionType = pulsar.LZ4
	}
	return client.CreateProducer(options)
}

// client keeps the client's queues full.
func (s *sender) client(ctx context.Context) error {
	p, err := s.producer()
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	received := func(_ pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
		if err == nil {
			s.confirmed.Add(1)
			return
		}
		select {
		case failed <- err:
		default:
		}
	}
	return s.each(ctx, senderShards, func(ctx context.Context, shard int) error {
		messages := s.messages(shard)
		for ctx.Err() == nil {
			for i := range messages {
				p.SendAsync(ctx, &messages[i], received)
			}
			select {
			case err := <-failed:
				return err
			default:
			}
		}
		return nil
	})
}

// blocking waits for each message.
func (s *sender) blocking(ctx context.Context) error {
	p, err := s.producer()
	if err != nil {
		return err
	}
	return s.each(ctx, senderAtOnce, func(ctx context.Context, n int) error {
		messages := s.messages(n)
		for ctx.Err() == nil {
			for i := range messages {
				if _, err := p.Send(ctx, &messages[i]); err != nil {
					return err
				}
				s.confirmed.Add(1)
			}
		}
		return nil
	})
}

// each runs n goroutines and waits for them; the first error ends all.
func (s *sender) each(ctx context.Context, n int, f func(context.Context, int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if errs[i] = f(ctx, i); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
