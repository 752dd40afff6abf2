package order

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
)

const sequenceProperty = "kinesis.sequence.number"

// environment is Benthos with a processor that delays and an output that fails; takers gets what that output takes.
func environment(takers *reader) *service.Environment {
	env := service.GlobalEnvironment().Clone()
	delay := service.NewConfigSpec().Field(service.NewDurationField("up_to"))
	if err := env.RegisterBatchProcessor("jitter", delay, func(p *service.ParsedConfig, _ *service.Resources) (service.BatchProcessor, error) {
		upTo, err := p.FieldDuration("up_to")
		return jitter(upTo), err
	}); err != nil {
		panic(err)
	}
	spec := service.NewConfigSpec().Field(service.NewFloatField("fails")).Field(service.NewBoolField("takes").Default(false))
	if err := env.RegisterBatchOutput("flaky", spec, func(p *service.ParsedConfig, _ *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
		f := &flaky{}
		var err error
		if f.fails, err = p.FieldFloat("fails"); err != nil {
			return nil, service.BatchPolicy{}, 0, err
		}
		takes, err := p.FieldBool("takes")
		if takes {
			f.takers = takers
		}
		return f, service.BatchPolicy{}, 64, err
	}); err != nil {
		panic(err)
	}
	return env
}

// jitter is a processor that keeps each batch for a random time.
type jitter time.Duration

func (j jitter) ProcessBatch(ctx context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	if err := wait(ctx, time.Duration(j)); err != nil {
		return nil, err
	}
	return []service.MessageBatch{batch}, nil
}

func (jitter) Close(context.Context) error { return nil }

// wait waits for a random time.
func wait(ctx context.Context, upTo time.Duration) error {
	timer := time.NewTimer(rand.N(upTo) + 1)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flaky is an output beside the pulsar output: slow, failing with a probability, and perhaps a place where records count
// as delivered.
type flaky struct {
	fails  float64
	takers *reader // nil: what it takes must be in the topic, too
}

var errFlaky = errors.New("flaky as asked")

func (f *flaky) Connect(context.Context) error { return nil }
func (f *flaky) Close(context.Context) error   { return nil }

func (f *flaky) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	if err := wait(ctx, 2*time.Millisecond); err != nil {
		return err
	}
	if rand.Float64() < f.fails {
		return errFlaky
	}
	if f.takers == nil {
		return nil
	}
	for _, m := range batch {
		data, err := m.AsBytes()
		if err != nil {
			return err
		}
		key, _ := m.MetaGet("pulsar_key")
		sequence, _ := m.MetaGet(sequenceProperty)
		f.takers.take(key, data, sequence)
	}
	return nil
}
