package kinesistest

import (
	"cmp"
	"context"
	"time"
)

// SubscriptionTimes are the times of enhanced fan-out. One that is 0 is as AWS has it; a negative one is none.
type SubscriptionTimes struct {
	Life      time.Duration // of a subscription, after which it ends cleanly: 5 minutes of real time
	Heartbeat time.Duration // from an event to an empty one when there are no records: 5 seconds of real time
	CallEvery time.Duration // at least from one call to the next, of one consumer and shard: 1 second of the server's clock
	TakeOver  time.Duration // from a successful call until the next one takes over instead of being refused: 5 seconds of the server's clock
}

func (t SubscriptionTimes) orDefault() SubscriptionTimes {
	t.Life = cmp.Or(t.Life, 5*time.Minute)
	t.Heartbeat = cmp.Or(t.Heartbeat, 5*time.Second)
	t.CallEvery = cmp.Or(t.CallEvery, time.Second)
	t.TakeOver = cmp.Or(t.TakeOver, 5*time.Second)
	return t
}

type subscribeRequest struct {
	ConsumerARN      string
	ShardId          string
	DryRun           bool
	StartingPosition *struct {
		Type           string
		SequenceNumber string
		Timestamp      *timestamp
	}
}

func (r *subscribeRequest) about(s *Server) (stream, shard string) {
	ref := consumerRef{ConsumerARN: r.ConsumerARN}
	stream, _ = ref.about(s)
	return stream, r.ShardId
}

// do answers with a *subscription that has the seat, or tells why not.
func (r *subscribeRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.StartingPosition == nil {
		return nil, errorf(Validation, "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null")
	}
	st, c, err := s.consumerByARN(r.ConsumerARN, now)
	if err != nil {
		return nil, err
	}
	if _, err := s.serving(st.name, now); err != nil {
		return nil, err
	}
	if c.status(now) != "ACTIVE" {
		return nil, s.notActive(st, c)
	}
	sh := st.find(r.ShardId, now)
	if sh == nil {
		return nil, errorf(ResourceNotFound, "Shard %s in stream %s under account %s does not exist", r.ShardId, st.name, s.account)
	}
	seat := c.seatAt(sh.index)
	if !seat.called.IsZero() && now.Sub(seat.called) < s.subscriptionTimes.CallEvery {
		return nil, errorf(LimitExceeded, "Rate exceeded for consumer %s and shard %s: one call of SubscribeToShard a second.", r.ConsumerARN, sh.id)
	}
	seat.called = now
	sh.trim(st, now)
	from := startingPosition{r.StartingPosition.Type, r.StartingPosition.SequenceNumber, r.StartingPosition.Timestamp}
	position, err := from.resolve("SubscribeToShard", sh, now)
	if err != nil {
		return nil, err
	}
	// It does not matter whether that subscription is still alive: a client that lost its connection has to wait as well.
	if !seat.succeeded.IsZero() && now.Sub(seat.succeeded) < s.subscriptionTimes.TakeOver {
		return nil, errorf(ResourceInUse, "Another active subscription exists for this consumer: %s:%s:%s:%s", s.account, st.name, sh.id, c.name)
	}
	if r.DryRun {
		return nil, errorf(DryRunOperation, "Request would have succeeded, but DryRun flag is set.")
	}
	if seat.current != nil {
		seat.current.end(errorf(ResourceInUse, "Another subscription has taken over: %s:%s:%s:%s", s.account, st.name, sh.id, c.name))
	}
	sub := &subscription{stream: st, shard: sh, consumer: c, seat: seat, since: now, position: position}
	sub.ctx, sub.cancel = context.WithCancelCause(context.Background())
	seat.succeeded, seat.current = now, sub
	s.live[sub] = struct{}{}
	return sub, nil
}
