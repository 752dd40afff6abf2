package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// phase is how far the owner's side of a hand-over is.
type phase int

const (
	// Nobody is to get the lease.
	_ phase = iota
	// phaseAsked: somebody asks, and the manager has to decide.
	phaseAsked
	// phaseDrain: the run is draining; when that is done the lease is given.
	phaseDrain
	// phaseRefuse: the ask has to go, with the next renewal. Only when that has succeeded may a drained run go on.
	phaseRefuse
	// phaseWithdrawn: the asker wants the lease no more. A hand-over of ours may still be on its way to the table; the
	// next renewal moves the counter from under it, and only then may the run go on.
	phaseWithdrawn
	// phaseKCL: a leader of KCL 3.x wants another worker to have the lease (r8.4).
	phaseKCL
)

// drainForKCL is how long KCL 3.x's own workers take at most until they complete a hand-over, drained or not.
const drainForKCL = 30 * time.Second

// errGivenToKCL is returned when the lease was handed over to a worker of KCL 3.x, whose leader has assigned it.
var errGivenToKCL = fmt.Errorf("%w, of KCL 3.x", ErrGiven)

// handover is what the actor of a lease knows of a hand-over to another worker.
type handover struct {
	phase phase
	// asker and askAt name the ask that was judged last; "" = none stands.
	asker string
	askAt int64
	// acquisition is the asker's, once a hand-over to him has been sent.
	acquisition string
	// until is when the drain is given up.
	until time.Duration
}

// isUrgent tells whether the next renewal is what the hand-over waits for.
func (o handover) isUrgent() bool { return o.phase == phaseRefuse || o.phase == phaseWithdrawn }

// giveTo is the asker that gets the lease instead of a release, "" if there is none (r4.7).
func (o handover) giveTo() string {
	if o.phase == phaseDrain {
		return o.asker
	}
	return ""
}

// follow brings the hand-over up to date with the item as a renewal's answer showed it: the lease is ours, and everything
// that was sent before has either been done or cannot be done any more.
func (h *Held) follow(l Lease) {
	o := &h.hand
	now := h.m.cfg.Clock()
	switch {
	case l.CheckpointOwner != "":
		h.m.noteBeside(l.Owner)
		if o.phase != phaseKCL && h.isAnnounced() {
			h.forgetAsk()
			*o = handover{phase: phaseKCL, until: now + drainForKCL}
			h.drain()
		}
	case l.Ask == "":
		h.forgetAsk()
		*o = handover{}
		h.resume()
	case l.Ask == o.asker && l.AskAt == o.askAt && o.phase != phaseWithdrawn:
		// Judged already, and once is enough: it may grow old while it is served.
	case isAskValid(l) && !h.isEnding():
		*o = handover{phase: phaseAsked, asker: l.Ask, askAt: l.AskAt}
		h.m.post(event{key: h.own.key, asked: &askSeen{held: h, lease: l}})
	default:
		*o = handover{phase: phaseRefuse, asker: l.Ask, askAt: l.AskAt}
	}
}

// forgetAsk tells the manager that the ask it knows of is settled, and that the lease stays.
func (h *Held) forgetAsk() {
	if h.hand.asker != "" {
		h.m.post(event{key: h.own.key, settled: true})
	}
}

// drain asks the run to drain, unless it was asked already.
func (h *Held) drain() {
	h.mu.Lock()
	already := h.mu.draining
	h.mu.draining = true
	h.mu.Unlock()
	if !already {
		h.m.handler.Drain(h)
	}
}

// resume lets a draining run go on.
func (h *Held) resume() {
	h.mu.Lock()
	draining := h.mu.draining
	h.mu.draining, h.mu.drained = false, false
	h.mu.Unlock()
	if draining {
		h.m.handler.Resume(h)
	}
}

// answer is the manager's decision over an ask that the actor has told it of.
func (h *Held) answer(ask Lease, grant bool) {
	h.mu.Lock()
	h.mu.answer = answerToAsk{asker: ask.Ask, askAt: ask.AskAt, given: true, grant: grant}
	h.mu.Unlock()
	h.poke()
}

// answerToAsk is such a decision.
type answerToAsk struct {
	asker        string
	askAt        int64
	given, grant bool
}

// answered returns the decision over the ask that stands, if there is one yet.
func (h *Held) answered() (grant, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.mu.answer
	return a.grant, a.given && a.asker == h.hand.asker && a.askAt == h.hand.askAt
}

func (h *Held) isDrained() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.drained
}

// isEnding tells whether the shard is read to its end, all but for the writing of it. Whoever got it now would have
// nothing to read.
func (h *Held) isEnding() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.confirmed.Sequence == checkpoint.ShardEnd
}

func (h *Held) isAnnounced() bool {
	select {
	case <-h.announced:
		return true
	default:
		return false
	}
}

// advance does what is due of a hand-over. It returns when to look again (0 = the hand-over has no wish), or why the run
// is over.
func (h *Held) advance(ctx context.Context) (next time.Duration, e *ending) {
	o := &h.hand
	now := h.m.cfg.Clock()
	late := now >= o.until
	switch o.phase {
	case phaseAsked:
		switch grant, ok := h.answered(); {
		case ok && grant:
			o.phase, o.until = phaseDrain, now+h.m.cfg.Failover
			h.drain()
			return now, nil
		case ok:
			o.phase = phaseRefuse
		}
	case phaseDrain:
		switch {
		case h.isDrained():
			return h.give(ctx)
		case late:
			// Something of the shard is stuck on its way to Pulsar. It stays with us.
			o.phase = phaseRefuse
			return now, nil
		}
		return o.until, nil
	case phaseKCL:
		if h.isDrained() || late {
			return 0, &ending{cause: fmt.Errorf("%w: %s", errGivenToKCL, h.own.next)}
		}
		return o.until, nil
	}
	return 0, nil
}

// isGiving tells whether the run is drained and waits for nothing but the hand-over itself.
func (h *Held) isGiving() bool { return h.hand.phase == phaseDrain && h.isDrained() }

// give sends the hand-over to the asker once. The run is drained and stays so until the answer is known. There is no
// renewal meanwhile, and no look at the item either: a try on the same counter fails if the one before it was done, and
// that answer tells it.
func (h *Held) give(ctx context.Context) (next time.Duration, e *ending) {
	cfg := &h.m.cfg
	o := &h.hand
	sent := cfg.Clock()
	if sent < h.giveAt {
		return h.giveAt, nil
	}
	timeout := min(cfg.tryTimeout(), h.fence.Deadline()-sent)
	if timeout <= 0 {
		return sent, nil // the loop sees the fence closed
	}
	if o.acquisition == "" {
		o.acquisition = acquisitionFor(o.asker)
	}
	a, err := h.m.try(ctx, timeout, giveUpdate(h.own, h.unwritten(), o.asker, o.acquisition))
	if err != nil {
		h.failures++
		h.giveAt = cfg.Clock() + cfg.pause(err, h.failures, h.fence.Deadline()-cfg.Clock())
		return h.giveAt, nil
	}
	h.failures, h.giveAt = 0, 0
	v := verdictDone
	if a.failed {
		v = judgeGive(h.own.worker, h.own.acquisition, o.asker, o.acquisition, a.lease, a.found)
	}
	switch v {
	case verdictDone:
		if !a.failed {
			h.adopt(a.lease)
		}
		return 0, &ending{cause: fmt.Errorf("%w: %s", ErrGiven, o.asker), known: true, found: a.found, lease: a.lease}
	case verdictAgain:
		// A renewal that got no answer was done before.
		h.adopt(a.lease)
		return sent, nil
	case verdictWithdrawn:
		h.adopt(a.lease)
		o.phase = phaseWithdrawn
		return sent, nil
	}
	return 0, lostTo(a)
}
