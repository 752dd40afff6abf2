package output

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// verify proves that the output can work now: the broker answers and, if the topic is known, has taken a producer. A trial
// is told of everything that is wrong, and not only of what keeps the output from working.
func (s *session) verify(ctx context.Context, trial bool) error {
	defer s.health.hush()()
	name, constant := s.conf.topic.static()
	if !constant {
		if err := s.reach(ctx); err != nil {
			return err
		}
	} else if err := s.verifyTopic(ctx, name); err != nil {
		return err
	}
	if s.conf.deduplication {
		if err := s.verifyReadable(ctx, name); err != nil {
			return err
		}
	}
	if s.conf.adminURL != "" {
		err := s.ensureDeduplication(ctx, name)
		if errors.Is(err, errNoAnswer) && ctx.Err() == nil && !trial {
			if !s.unasked.Swap(true) {
				s.log.Warnf("%v; the first message will tell, by being sent twice", err)
			}
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return s.verifyDeadLetters(ctx)
}

// verifyTopic proves that a topic takes producers.
func (s *session) verifyTopic(ctx context.Context, name string) error {
	t, err := s.topics.use(name, time.Now())
	if err != nil {
		return err
	}
	defer s.topics.done(t, time.Now())
	if err := s.refused(); err != nil {
		return err
	}
	if err := t.produceable(ctx); err != nil {
		return err
	}
	s.health.recovered()
	return nil
}

// verifyReadable proves that the topic may be read. It is read after a kill only, and a right that is missing would stop shards
// then, at any time of the night. Whatever else is wrong with reading may be over by then, and is no reason not to start.
func (s *session) verifyReadable(ctx context.Context, name string) error {
	t, err := s.topics.use(name, time.Now())
	if err != nil {
		return err
	}
	defer s.topics.done(t, time.Now())
	l, err := t.known(ctx)
	if err != nil {
		return err
	}
	probe := &scan{session: s, topic: l.partitions[0].name, silence: s.scanSilence}
	if _, err := probe.end(ctx); err != nil && strings.Contains(err.Error(), "AuthorizationError") {
		return fmt.Errorf("%s: the role that is shown to the broker may not consume, but the topic is read after a kill: grant it produce and consume: %w", fieldDeduplication, err)
	}
	return nil
}

// verifyDeadLetters proves, once, that the dead-letter topic can be written to: a wrong name or a missing right must not
// show when the first record is refused. Later it does not keep the output from its work.
func (s *session) verifyDeadLetters(ctx context.Context) error {
	topic := s.conf.deadLetterTopic
	if topic == "" || s.deadLettersProven.Load() {
		return nil
	}
	if err := s.verifyTopic(ctx, topic); err != nil {
		return fmt.Errorf("%s: %w", fieldDeadLetterTopic, err)
	}
	s.deadLettersProven.Store(true)
	return nil
}

// probeTopic is asked for when no topic is known yet. Its form keeps brokers that create topics at the first question from
// creating this one: a partition is never created for itself.
const probeTopic = "persistent://public/default/connection-test-partition-0"

// reach proves that the broker answers, whatever it answers: whether the topics to come may be used is not known here.
func (s *session) reach(ctx context.Context) error {
	c := newCall("reaching the broker")
	if !s.spawn(func() {
		_, c.err = s.client.TopicPartitions(probeTopic)
		close(c.done)
	}) {
		return errClosed
	}
	err := s.await(ctx, c)
	if err == nil {
		s.health.recovered()
		return nil
	}
	select {
	case <-c.done:
		if _, cause := s.health.failure(); cause == nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
	default:
	}
	return err
}
