package e2e

import (
	"context"
	"errors"
	"sync"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// environment is Benthos with the outputs of these tests.
var environment = func() *service.Environment {
	env := service.GlobalEnvironment().Clone()
	spec := service.NewConfigSpec().Field(service.NewIntField("every").Default(3)).Field(service.NewIntField("max_in_flight").Default(64))
	if err := env.RegisterBatchOutput("flaky", spec, func(p *service.ParsedConfig, _ *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
		every, err := p.FieldInt("every")
		if err != nil {
			return nil, service.BatchPolicy{}, 0, err
		}
		inFlight, err := p.FieldInt("max_in_flight")
		return &flaky{every: every}, service.BatchPolicy{}, inFlight, err
	}); err != nil {
		panic(err)
	}
	return env
}()

// flaky is an output beside the pulsar output. It keeps nothing and fails every so-many-th batch.
type flaky struct {
	every int
	mu    sync.Mutex
	n     int
}

var errFlaky = errors.New("flaky as asked")

func (f *flaky) Connect(context.Context) error { return nil }
func (f *flaky) Close(context.Context) error   { return nil }
func (f *flaky) WriteBatch(context.Context, service.MessageBatch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; f.every > 0 && f.n%f.every == 0 {
		return errFlaky
	}
	return nil
}
