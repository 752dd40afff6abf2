package metrics

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/push"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// pushTimeout bounds one push: a gateway that does not answer must not hold up the end of the process.
const pushTimeout = 5 * time.Second

// pushing sends a registry to a push gateway, in a goroutine of its own when there is an interval, and once at the end.
type pushing struct {
	pusher *push.Pusher
	log    *service.Logger
	cancel context.CancelFunc
	done   chan struct{}
}

func startPushing(c config, registry *prometheus.Registry, log *service.Logger) *pushing {
	p := &pushing{
		// Add rather than Push: a gateway that several pipelines share keeps what the others have sent.
		pusher: push.New(c.pushURL, c.pushJob).Gatherer(registry).Client(&http.Client{Timeout: pushTimeout}),
		log:    log, done: make(chan struct{}),
	}
	if c.pushUser != "" {
		p.pusher = p.pusher.BasicAuth(c.pushUser, c.pushPassword)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go p.run(ctx, c.pushInterval)
	return p
}

func (p *pushing) run(ctx context.Context, interval time.Duration) {
	defer close(p.done)
	if interval == 0 {
		return
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := p.pusher.AddContext(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			p.log.Warnf("Pushing metrics to push_url fails, and is tried on: %v", err)
		}
		failing = err != nil
	}
}

// stop ends the pushing with a last push, so that what happened since the last one is told.
func (p *pushing) stop(ctx context.Context) error {
	p.cancel()
	<-p.done
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	if err := p.pusher.AddContext(ctx); err != nil {
		return fmt.Errorf("pushing the last metrics to push_url: %w", err)
	}
	return nil
}
