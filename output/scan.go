package output

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/backoff"
)

const (
	// scanQueue is how many messages the broker may send ahead of what was looked at. The client keeps them in memory, of
	// whatever size they are.
	scanQueue = 100

	// scanTries is how often in a row a reader may end without having read anything.
	scanTries = 3
)

// Why a reader is given up and another goes on behind the last message that was read.
var (
	errReaderTorn   = errors.New("the connection broke while the topic was read")
	errReaderSilent = errors.New("the broker is connected, but sends nothing of what the topic has")
)

// topicReader is what reading a topic back needs of pulsar.Client. It is not part of client: hardly anybody ever needs it.
type topicReader interface {
	CreateReader(pulsar.ReaderOptions) (pulsar.Reader, error)
}

var _ topicReader = pulsar.Client(nil)

// scan reads a partition from a place up to the message that is the last one when the scan begins, every message once.
//
// The client's (v0.21.0) own means are not up to that. HasNext is false at any error, as it is at the end. A reader whose
// connection breaks goes on by itself, but leaves out the message that it was about to hand over; so it is given up as
// soon as it begins to connect again, which shows in that it asks for a policy of pauses, and another begins behind the
// last message that came before.
//
// There is no limit on the time of it all, since a topic may be large, but on that in which nothing comes.
type scan struct {
	session *session
	topic   string
	at      pulsar.MessageID // behind which it goes on
	visit   func(pulsar.Message) (goOn bool)
	silence time.Duration // after which a reader is given up

	last  pulsar.MessageID // of the topic, as the last reader was told
	read  int
	began time.Time
	told  bool
}

// run reads to the end, or until visit has seen enough. An error says that it did not get there.
func (s *scan) run(ctx context.Context) error {
	s.began = time.Now()
	for idle := 0; ; {
		before := s.read
		err := s.readOn(ctx)
		if err == nil {
			break
		}
		if idle++; s.read > before {
			idle = 0
		}
		switch {
		case ctx.Err() != nil || !errors.Is(err, errReaderTorn) && !errors.Is(err, errReaderSilent):
			return fmt.Errorf("reading %s: %w", s.topic, err)
		case idle < scanTries:
		case errors.Is(err, errReaderSilent):
			// What the broker calls the last message need not be one that readers get: older brokers count the marks of
			// replicated subscriptions, any of them what a filter of theirs keeps back. It has answered every question
			// meanwhile, and three readers of their own were told of nothing more.
			s.session.log.Infof("The last entries of %s are none that readers are given", s.topic)
			return nil
		default:
			return fmt.Errorf("reading %s: %w", s.topic, err)
		}
	}
	if s.told {
		s.session.log.Infof("%s was read, %d messages", s.topic, s.read)
	}
	return nil
}

// end finds out which message of the topic is the last one. Its entry is negative in a topic that has none.
func (s *scan) end(ctx context.Context) (pulsar.MessageID, error) {
	s.at, s.visit = pulsar.LatestMessageID(), func(pulsar.Message) bool { return false }
	err := s.run(ctx)
	return s.last, err
}

// readOn reads with one reader. It returns nil at the end of the topic.
func (s *scan) readOn(ctx context.Context) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	reader, last, err := s.open(ctx, giveUp)
	if err != nil {
		return scanCause(ctx, err)
	}
	defer s.session.discard(reader)
	s.last = last
	if last.EntryID() < 0 || s.at.EntryID() >= 0 && comparePlaces(last, s.at) <= 0 {
		return nil
	}
	silence := time.AfterFunc(s.silence, func() { giveUp(errReaderSilent) })
	defer silence.Stop()
	for {
		m, err := reader.Next(ctx)
		// The reader was torn before it left anything out, so what came while it was whole is all there is up to there.
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errReaderTorn, err) // the client has closed it
		}
		silence.Reset(s.silence)
		if s.read == 0 && comparePlaces(m.ID(), s.at) <= 0 {
			continue // The place of a receipt and that of a reader's message differ in what says that they are no batch.
		}
		goOn := s.visit(m)
		s.at = m.ID()
		s.read++
		s.tell()
		if !goOn || comparePlaces(s.at, last) >= 0 {
			return nil
		}
	}
}

// open makes a reader and asks for the last message of the topic. If the wait is cut short the reader is closed when the
// client comes back with it.
func (s *scan) open(ctx context.Context, giveUp context.CancelCauseFunc) (pulsar.Reader, pulsar.MessageID, error) {
	readers, ok := s.session.client.(topicReader)
	if !ok {
		return nil, nil, errors.New("this client cannot read")
	}
	conf := s.session.conf
	var policies atomic.Int32
	options := pulsar.ReaderOptions{
		Topic: s.topic, StartMessageID: s.at, ReceiverQueueSize: scanQueue,
		BackoffPolicyFunc: func() backoff.Policy {
			// The first is that of the question for the last message.
			if policies.Add(1) > 1 {
				giveUp(errReaderTorn)
			}
			return &reconnectBackoff{first: conf.firstReconnect, last: conf.lastReconnect}
		},
	}
	var made struct {
		sync.Mutex
		reader pulsar.Reader
		last   pulsar.MessageID
		late   bool
	}
	c := newCall("reading " + s.topic)
	if !s.session.spawn(func() {
		defer close(c.done)
		reader, err := readers.CreateReader(options)
		if err != nil {
			c.err = err // reader is not to be looked at: it is a nil pointer in a non-nil interface
			return
		}
		last, err := reader.GetLastMessageID()
		c.err = err
		made.Lock()
		made.reader, made.last = reader, last
		late := made.late
		made.Unlock()
		if err != nil || late {
			reader.Close()
		}
	}) {
		return nil, nil, errClosed
	}
	if err := s.session.await(ctx, c); err != nil {
		made.Lock()
		made.late = true
		reader := made.reader
		made.Unlock()
		if reader != nil {
			s.session.discard(reader)
		}
		return nil, nil, err
	}
	return made.reader, made.last, nil
}

// discard closes a reader in the background: the client waits for the broker's answer.
func (s *session) discard(reader pulsar.Reader) {
	if !s.spawn(reader.Close) {
		reader.Close()
	}
}

// tell says, once, that it takes long.
func (s *scan) tell() {
	if s.told || time.Since(s.began) < patience {
		return
	}
	s.told = true
	s.session.log.Infof("Reading %s to find out which records it has; %d messages so far, and the shard waits until the end", s.topic, s.read)
}

// scanCause prefers why a reader was given up to what its calls made of that.
func scanCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// comparePlaces compares entries. What is in a batch together is one entry, and of ours none is.
func comparePlaces(a, b pulsar.MessageID) int {
	return cmp.Or(cmp.Compare(a.LedgerID(), b.LedgerID()), cmp.Compare(a.EntryID(), b.EntryID()))
}
