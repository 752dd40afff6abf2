package kinesistest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// consumer is one registered for enhanced fan-out. Guarded by Server.mu.
type consumer struct {
	name, arn string
	created   time.Time
	readyAt   time.Time // CREATING before it
	deletedAt time.Time // DELETING before it, gone after it; zero when not deregistered
	shards    map[uint32]*seat
}

// seat is a consumer's place at one shard: one subscription at a time sits there.
type seat struct {
	called    time.Time // the last call that was not refused for its rate
	succeeded time.Time // the last call that got the seat
	current   *subscription
}

func (c *consumer) status(now time.Time) string {
	switch {
	case !c.deletedAt.IsZero():
		return "DELETING"
	case now.Before(c.readyAt):
		return "CREATING"
	}
	return "ACTIVE"
}

func (c *consumer) seatAt(shard uint32) *seat {
	st := c.shards[shard]
	if st == nil {
		st = &seat{}
		c.shards[shard] = st
	}
	return st
}

// dismiss ends all subscriptions of the consumer.
func (c *consumer) dismiss(why *apiError) {
	for _, seat := range c.shards {
		if seat.current != nil {
			seat.current.end(why)
		}
	}
}

// registered are the consumers of the stream that are not gone at now, in the order of their registration.
func (st *stream) registered(now time.Time) []*consumer {
	st.consumers = slices.DeleteFunc(st.consumers, func(c *consumer) bool {
		return !c.deletedAt.IsZero() && !now.Before(c.deletedAt)
	})
	return st.consumers
}

func (st *stream) consumer(name string, now time.Time) *consumer {
	for _, c := range st.registered(now) {
		if c.name == name {
			return c
		}
	}
	return nil
}

// register makes a consumer. Called with mu held. A consumer that is registered again gets another ARN, for the ARN ends with
// the moment of the registration in seconds; here that is told apart from an earlier one in the same second too.
func (st *stream) register(name string, now time.Time, delay time.Duration) *consumer {
	stamp := max(now.Unix(), st.registrations[name]+1)
	if st.registrations == nil {
		st.registrations = map[string]int64{}
	}
	st.registrations[name] = stamp
	c := &consumer{
		name:    name,
		arn:     st.arn + "/consumer/" + name + ":" + strconv.FormatInt(stamp, 10),
		created: time.Unix(stamp, 0),
		readyAt: now.Add(delay),
		shards:  map[uint32]*seat{},
	}
	st.consumers = append(st.consumers, c)
	return c
}

// dismiss ends all subscriptions to the stream, which is going away.
func (st *stream) dismiss(why *apiError) {
	for _, c := range st.consumers {
		c.dismiss(why)
	}
}

// splitConsumerARN is the stream's ARN and the consumer's name in a consumer's ARN; false when it is not one.
func splitConsumerARN(arn string) (stream, name string, ok bool) {
	stream, rest, ok := strings.Cut(arn, "/consumer/")
	name, stamp, found := strings.Cut(rest, ":")
	if _, err := strconv.ParseUint(stamp, 10, 63); err != nil {
		return "", "", false
	}
	return stream, name, ok && found && name != "" && strings.Contains(stream, ":stream/")
}

// RegisterConsumer registers a consumer for enhanced fan-out, ACTIVE at once, and returns its ARN; that of the one there is
// when the name is taken.
func (s *Server) RegisterConsumer(stream, name string) (arn string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	st, failure := s.find(stream, now)
	if failure != nil {
		return "", failure
	}
	if failure := checkName("consumerName", name); failure != nil {
		return "", failure
	}
	if c := st.consumer(name, now); c != nil {
		return c.arn, nil
	}
	return st.register(name, now, 0).arn, nil
}

// DeregisterConsumer removes a consumer at once. Its subscriptions end with a ResourceNotFoundException.
func (s *Server) DeregisterConsumer(arn string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	st, c, err := s.consumerByARN(arn, now)
	if err != nil {
		return err
	}
	c.deletedAt = now
	c.dismiss(s.noConsumer(st, c.name))
	st.registered(now)
	return nil
}

// consumerByARN is called with mu held.
func (s *Server) consumerByARN(arn string, now time.Time) (*stream, *consumer, *apiError) {
	streamARN, name, ok := splitConsumerARN(arn)
	if !ok {
		return nil, nil, errorf(Validation, "1 validation error detected: Value '%s' at 'consumerARN' failed to satisfy constraint: "+
			"Member must satisfy regular expression pattern: ^(arn):aws.*:kinesis:.*:\\d{12}:.*stream\\/[a-zA-Z0-9_.-]+\\/consumer\\/[a-zA-Z0-9_.-]+:[0-9]+", arn)
	}
	ref := streamRef{StreamARN: streamARN}
	st, err := ref.resolve(s, now)
	if err != nil {
		return nil, nil, err
	}
	c := st.consumer(name, now)
	if c == nil || c.arn != arn {
		return nil, nil, s.noConsumer(st, name)
	}
	return st, c, nil
}

func (s *Server) noConsumer(st *stream, name string) *apiError {
	return errorf(ResourceNotFound, "Consumer %s under stream %s, account %s not found.", name, st.name, s.account)
}

func (s *Server) notActive(st *stream, c *consumer) *apiError {
	return errorf(ResourceInUse, "Consumer %s with creation timestamp %d under stream %s, account %s is not in ACTIVE status.",
		c.name, c.created.Unix(), st.name, s.account)
}

// Subscription is one that a client is served now.
type Subscription struct {
	ConsumerARN, Stream, Shard string
	Since                      time.Time // by the server's clock
	Events, Records            int       // sent so far
}

func (sub Subscription) String() string {
	return fmt.Sprintf("%s of %s by %s", sub.Shard, sub.Stream, sub.ConsumerARN)
}

// Subscriptions are those being served, by shard ID; of all streams for "".
func (s *Server) Subscriptions(stream string) []Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	var live []Subscription
	for sub := range s.live {
		if stream == "" || sub.stream.name == stream {
			live = append(live, Subscription{sub.consumer.arn, sub.stream.name, sub.shard.id, sub.since, sub.events, sub.records})
		}
	}
	slices.SortFunc(live, func(a, b Subscription) int { return strings.Compare(a.String(), b.String()) })
	return live
}

// EndSubscriptions ends those being served now for a stream and a shard, "" being all: cleanly, as after five minutes, or with
// an exception when a code is given. It returns how many there were, and does not wait for them.
func (s *Server) EndSubscriptions(stream, shardID, code string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := 0
	for sub := range s.live {
		if stream != "" && sub.stream.name != stream || shardID != "" && sub.shard.id != shardID {
			continue
		}
		ended++
		if code == "" {
			sub.end(nil)
		} else {
			sub.end(errorf(code, "injected by a test"))
		}
	}
	return ended
}
