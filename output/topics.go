package output

import (
	"fmt"
	"sync"
	"time"
)

const (
	// maxTopics bounds the topics of an output with an interpolated topic. Each partition of each costs a ticker, three
	// goroutines and some 250 KiB of queues, whether it is in use or not.
	maxTopics = 256

	// idleLimit is how long a topic may go unused before its producers are closed, if the topic is interpolated.
	idleLimit = 5 * time.Minute
)

// topics is the set of topics in use. A configured constant topic is in it for ever, others come with their first message
// and go when they are idle or, if there are too many, when they have been idle for longest.
type topics struct {
	session *session
	limit   int
	forever string // the name of the constant topic, "" if the topic is interpolated

	mu struct {
		sync.Mutex
		byName map[string]*topicUse
		closed bool
	}
}

type topicUse struct {
	topic    *topic
	users    int
	lastUsed time.Time
}

func newTopics(s *session, forever string) *topics {
	t := &topics{session: s, limit: maxTopics, forever: forever}
	t.mu.byName = map[string]*topicUse{}
	return t
}

// use returns a topic, which stays until it is given back with done.
func (t *topics) use(name string, now time.Time) (*topic, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return nil, errClosed
	}
	u := t.mu.byName[name]
	if u == nil {
		if len(t.mu.byName) >= t.limit && !t.evict() {
			return nil, fmt.Errorf("using topic %s: %w: there are %d", name, errTooManyTopics, t.limit)
		}
		u = &topicUse{topic: newTopic(t.session, name)}
		t.mu.byName[name] = u
	}
	u.users++
	u.lastUsed = now
	return u.topic, nil
}

// done gives a topic back.
func (t *topics) done(topic *topic, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// It may have been replaced since, if the set was closed in between.
	if u := t.mu.byName[topic.name]; u != nil && u.topic == topic {
		u.users--
		u.lastUsed = now
	}
}

// evict closes the unused topic that was used longest ago. It must be called with mu held.
func (t *topics) evict() bool {
	var oldest *topicUse
	for name, u := range t.mu.byName {
		if u.users == 0 && name != t.forever && (oldest == nil || u.lastUsed.Before(oldest.lastUsed)) {
			oldest = u
		}
	}
	if oldest == nil {
		return false
	}
	t.drop(oldest)
	return true
}

// drop must be called with mu held.
func (t *topics) drop(u *topicUse) {
	delete(t.mu.byName, u.topic.name)
	t.session.bury(u.topic)
}

// sweep closes what has been idle for too long and returns the topics that stay.
func (t *topics) sweep(now time.Time) []*topic {
	t.mu.Lock()
	defer t.mu.Unlock()
	var stay []*topic
	for name, u := range t.mu.byName {
		if u.users == 0 && name != t.forever && now.Sub(u.lastUsed) >= idleLimit {
			t.drop(u)
			continue
		}
		stay = append(stay, u.topic)
	}
	return stay
}

// all returns the topics of the set.
func (t *topics) all() []*topic {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*topic
	for _, u := range t.mu.byName {
		all = append(all, u.topic)
	}
	return all
}

// close ends the set and all its topics.
func (t *topics) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.closed = true
	for _, u := range t.mu.byName {
		t.drop(u)
	}
}
