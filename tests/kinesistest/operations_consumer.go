package kinesistest

import "time"

const (
	maxConsumers         = 20 // of one stream
	maxConsumersCreating = 5  // of one stream, at the same time
)

type consumerSummary struct {
	ConsumerName, ConsumerARN, ConsumerStatus string
	ConsumerCreationTimestamp                 timestamp
}

func (c *consumer) describe(now time.Time) consumerSummary {
	return consumerSummary{c.name, c.arn, c.status(now), timestamp{c.created}}
}

type registerConsumerRequest struct {
	StreamARN, ConsumerName string
	Tags                    map[string]string
}

func (r *registerConsumerRequest) ref() *streamRef { return &streamRef{StreamARN: r.StreamARN} }

func (r *registerConsumerRequest) about(*Server) (stream, shard string) { return r.ref().named(), "" }

func (r *registerConsumerRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkName("consumerName", r.ConsumerName); err != nil {
		return nil, err
	}
	st, err := r.ref().resolve(s, now)
	if err != nil {
		return nil, err
	}
	if !st.serves(now) {
		return nil, errorf(ResourceInUse, "Stream %s under account %s not ACTIVE, instead in state %s", st.name, s.account, st.status(now))
	}
	if st.consumer(r.ConsumerName, now) != nil {
		return nil, errorf(ResourceInUse, "Consumer %s under stream %s already exists for account %s.", r.ConsumerName, st.name, s.account)
	}
	creating := 0
	for _, c := range st.registered(now) {
		if c.status(now) == "CREATING" {
			creating++
		}
	}
	if n := len(st.registered(now)); n >= maxConsumers || creating >= maxConsumersCreating {
		return nil, errorf(LimitExceeded, "Stream %s under account %s has %d consumers, %d of them CREATING; the limits are %d and %d.",
			st.name, s.account, n, creating, maxConsumers, maxConsumersCreating)
	}
	return map[string]any{"Consumer": st.register(r.ConsumerName, now, s.consumerDelay).describe(now)}, nil
}

// consumerRef names a consumer by its ARN, by its name and its stream's ARN, or by all three if they agree.
type consumerRef struct{ ConsumerARN, StreamARN, ConsumerName string }

func (r *consumerRef) about(*Server) (stream, shard string) {
	streamARN := r.StreamARN
	if streamARN == "" {
		streamARN, _, _ = splitConsumerARN(r.ConsumerARN)
	}
	ref := streamRef{StreamARN: streamARN}
	return ref.named(), ""
}

// resolve is called with mu held.
func (r *consumerRef) resolve(s *Server, now time.Time) (*stream, *consumer, *apiError) {
	if r.ConsumerARN != "" {
		st, c, err := s.consumerByARN(r.ConsumerARN, now)
		if err == nil && (r.StreamARN != "" && r.StreamARN != st.arn || r.ConsumerName != "" && r.ConsumerName != c.name) {
			err = errorf(InvalidArgument, "ConsumerARN %s does not agree with the given StreamARN and ConsumerName.", r.ConsumerARN)
		}
		return st, c, err
	}
	if r.StreamARN == "" || r.ConsumerName == "" {
		return nil, nil, errorf(InvalidArgument, "Either ConsumerARN or both StreamARN and ConsumerName must be given.")
	}
	ref := streamRef{StreamARN: r.StreamARN}
	st, err := ref.resolve(s, now)
	if err != nil {
		return nil, nil, err
	}
	c := st.consumer(r.ConsumerName, now)
	if c == nil {
		return nil, nil, s.noConsumer(st, r.ConsumerName)
	}
	return st, c, nil
}

type describeConsumerRequest struct{ consumerRef }

func (r *describeConsumerRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, c, err := r.resolve(s, now)
	if err != nil {
		return nil, err
	}
	return map[string]any{"ConsumerDescription": struct {
		consumerSummary
		StreamARN string
	}{c.describe(now), st.arn}}, nil
}

type deregisterConsumerRequest struct{ consumerRef }

func (r *deregisterConsumerRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, c, err := r.resolve(s, now)
	if err != nil {
		return nil, err
	}
	if c.deletedAt.IsZero() {
		c.deletedAt = now.Add(s.consumerDelay)
		// A consumer that is DELETING can't read any more.
		c.dismiss(s.noConsumer(st, c.name))
	}
	return nil, nil
}

type listConsumersRequest struct {
	StreamARN               string
	NextToken               string
	MaxResults              *int
	StreamCreationTimestamp *timestamp
}

func (r *listConsumersRequest) about(*Server) (stream, shard string) {
	ref := streamRef{StreamARN: r.StreamARN}
	return ref.named(), ""
}

func (r *listConsumersRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkRange("maxResults", r.MaxResults, 1, 10_000); err != nil {
		return nil, err
	}
	ref := streamRef{StreamARN: r.StreamARN}
	st, err := ref.resolve(s, now)
	if err != nil {
		return nil, err
	}
	after := ""
	if r.NextToken != "" {
		if r.StreamCreationTimestamp != nil {
			return nil, errorf(InvalidArgument, "NextToken and StreamCreationTimestamp cannot be provided together.")
		}
		if after, err = s.readToken(r.NextToken, now); err != nil {
			return nil, err
		}
	}
	if r.StreamCreationTimestamp != nil && r.StreamCreationTimestamp.Unix() != st.created.Unix() {
		return nil, errorf(ResourceNotFound, "Stream %s under account %s with that creation time not found.", st.name, s.account)
	}
	limit := 100
	if r.MaxResults != nil {
		limit = *r.MaxResults
	}
	out := struct {
		Consumers []consumerSummary
		NextToken string `json:",omitempty"`
	}{Consumers: []consumerSummary{}}
	skip := after != ""
	for _, c := range st.registered(now) {
		if skip {
			skip = c.arn != after
			continue
		}
		if len(out.Consumers) == limit {
			out.NextToken = s.writeToken(out.Consumers[limit-1].ConsumerARN, now)
			break
		}
		out.Consumers = append(out.Consumers, c.describe(now))
	}
	return out, nil
}
