package output

import (
	"context"
	"strings"
	"time"
)

// A producer that is closed while the client (v0.21.0) is just connecting it again stays with the broker: the client's
// question is on its way, and whoever closed the producer does not wait for the answer. With numbers, whose producers have
// names, nobody else gets that name as long as the connection lives, and the shard stands still. The client offers no way to
// such a producer. So, where it may be that, the whole session makes way for a new one, whose client has connections of its
// own; with the old ones the broker forgets the producer.

const (
	// busyLimit is how long a name that this session has given may be refused. It is longer than a broker takes to miss a
	// connection that ended in good order.
	busyLimit = 10 * time.Second

	// renewalPause is the least time between two renewals. The name may belong to a process that has stopped for a while, or
	// to one that took the shard over and has lost it since; then they bring nothing, and cost every shard some records'
	// repetition, which Pulsar drops.
	renewalPause = 2 * time.Minute
)

// gaveName notes that the session has had a producer of this name. They are as many as there were runs of shards.
func (s *session) gaveName(name string) {
	if name == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.named == nil {
		s.mu.named = map[string]bool{}
	}
	s.mu.named[name] = true
}

func (s *session) hadName(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.named[name]
}

// noteBusyLocked looks at the refusal of a producer. It must be called with p.mu held.
func (p *partition) noteBusyLocked(refusal error, now time.Time) {
	s := p.topic.session
	switch {
	case p.producer == "" || !strings.Contains(refusal.Error(), "ProducerBusy"):
		p.mu.busySince = time.Time{}
	case p.mu.busySince.IsZero():
		p.mu.busySince = now
	case now.Sub(p.mu.busySince) >= s.busyLimit && s.hadName(p.producer):
		s.wedged.Store(true)
	}
}

// renew lets another session take the place of one that is wedged. Batches that the old one is writing fail as they do when a
// producer ends, and the next ones find the output not connected.
func (o *output) renew(s *session, now time.Time) {
	if !s.wedged.Load() || s.lanes.inDoubt() {
		// What is in doubt is known to the session alone: it is read back first, or there would be copies.
		return
	}
	s.wedged.Store(false)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.closed || o.session.Load() != s || !o.mu.renewed.IsZero() && now.Sub(o.mu.renewed) < renewalPause {
		return
	}
	o.mu.renewed = now
	o.session.Store(nil)
	o.log.Infof("Connecting to Pulsar anew: the broker still has producers that were closed while it was away, and refuses new ones of their names")
	o.renewals.Go(func() { s.close(context.Background()) })
}

// inDoubt tells whether any lane has to read its topic back.
func (ls *lanes) inDoubt() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.mu.byRun {
		if l.inDoubt.Load() {
			return true
		}
	}
	return false
}
