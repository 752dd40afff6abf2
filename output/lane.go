package output

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// lanes are the ways of the runs that write with de-duplication.
type lanes struct {
	session *session

	mu struct {
		sync.Mutex
		byRun map[*attempt.Run]*lane
	}
}

// lane is the way of one run of a shard: a producer for each partition that has got a record of it, under the name that
// the input gives. Another run of the shard must not send while they live, so they end with the run, or when it drains.
//
// Invariants:
//   - One batch at a time is in the lane. The input hands out one at a time, but a copy that somebody held back may come.
//   - A lane that has ended is not used again; the run gets a new one when it is given more.
type lane struct {
	session *session
	run     *attempt.Run
	busy    chan struct{} // held by whoever writes

	// Guarded by busy.
	topic    *topic
	sequence attempt.Sequence
	tracks   []*track
	closed   <-chan struct{} // closed when the producers of the tracks before have ended
	doubts   []*track        // in doubt, of producers that are not gone on with
	not      string          // the name of those
	turns    turns
	began    time.Time
	inherits bool        // an earlier run has sent under the same name, perhaps
	fresh    int64       // the lowest ordinal that was new to Pulsar, of all tracks; -1 for none
	reach    int64       // up to this ordinal an earlier run may have sent what is in doubt, see reached; -1: it has not
	rested   bool        // what is in doubt has been given the time to be stored
	inDoubt  atomic.Bool // there are doubts

	mu struct {
		sync.Mutex
		open  []*track // the tracks that have to be closed
		ended bool
		stop  context.CancelCauseFunc // of what must not outlast the lane, nil if nothing
	}
}

// track is a partition as one lane writes to it.
//
// It is in doubt when a message failed and one behind it may be stored: the broker would call the failed one a duplicate
// when it comes again, and a receipt proves nothing any more. See lane.bar.
type track struct {
	partition *partition
	of        int              // partitions that the topic has, as far as the lane knows
	last      pulsar.MessageID // in front of all whose fate is not known, nil if there is none
	used      bool             // something was sent, perhaps by an earlier run alone
	fresh     int64            // the lowest ordinal that Pulsar had no number above, -1 for none
	seen      pulsar.MessageID // of the messages that an earlier run has sent, the last that was found; see lane.inherit
	// met is the last message that was found of those in doubt. What has higher ordinals is behind it.
	met struct {
		place   pulsar.MessageID
		ordinal int64
	}
	doubt   bool
	missing bool // used by settled alone
	// waited holds the generations of which a receipt was not waited for. What is known of them by now is not all: see
	// lane.judge.
	waited []*generation
}

func newLanes(s *session) *lanes {
	ls := &lanes{session: s}
	ls.mu.byRun = map[*attempt.Run]*lane{}
	return ls
}

// enter returns the run's lane, for one writer at a time, who gives it back with leave.
func (ls *lanes) enter(ctx context.Context, run *attempt.Run) (*lane, error) {
	for {
		l, err := ls.of(run)
		if err != nil {
			return nil, err
		}
		select {
		case l.busy <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !l.isOver() {
			return l, nil
		}
		l.leave()
	}
}

func (l *lane) leave() { <-l.busy }

func (ls *lanes) of(run *attempt.Run) (*lane, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.mu.byRun[run]; l != nil {
		return l, nil
	}
	l := &lane{session: ls.session, run: run, busy: make(chan struct{}, 1), turns: newTurns(), began: time.Now(), fresh: -1, reach: -1}
	if !run.OnClose(ls, func() <-chan struct{} { return ls.end(l) }) {
		return nil, fmt.Errorf("writing records of %s: %w", run.Shard(), errRunOver)
	}
	ls.mu.byRun[run] = l
	return l, nil
}

// end closes a lane's producers, in the background; done is closed when nothing of them can reach the broker any more.
func (ls *lanes) end(l *lane) (done <-chan struct{}) {
	ls.mu.Lock()
	if ls.mu.byRun[l.run] == l {
		delete(ls.mu.byRun, l.run)
	}
	ls.mu.Unlock()
	l.mu.Lock()
	l.mu.ended = true
	if l.mu.stop != nil {
		l.mu.stop(errRunOver)
	}
	open := l.mu.open
	l.mu.open = nil
	l.mu.Unlock()
	return ls.session.dismissTracks(open)
}

// close ends all lanes, since the session ends.
func (ls *lanes) close() {
	ls.mu.Lock()
	var all []*lane
	for _, l := range ls.mu.byRun {
		all = append(all, l)
	}
	ls.mu.Unlock()
	for _, l := range all {
		l.run.Forget(ls)
		ls.end(l)
	}
}

// dismissTracks ends the producers of tracks in good order.
func (s *session) dismissTracks(tracks []*track) (done <-chan struct{}) {
	closed := make(chan struct{})
	if len(tracks) == 0 {
		close(closed)
		return closed
	}
	partitions := make([]*partition, len(tracks))
	for i, t := range tracks {
		partitions[i] = t.partition
	}
	// As a topic they are waited for when the session ends.
	grave := &topic{name: "", session: s}
	grave.layout.Store(&layout{partitions: partitions})
	s.bury(grave)
	if !s.spawn(func() {
		defer close(closed)
		for _, p := range partitions {
			p.ended()
		}
	}) {
		// The session is ending, and waits for them itself.
		close(closed)
	}
	return closed
}

// ended returns when the partition, which was dismissed, has no producer any more.
func (p *partition) ended() {
	p.mu.Lock()
	creation := p.mu.creation
	p.mu.Unlock()
	if creation != nil {
		<-creation.done
	}
	if g := p.last(); g != nil {
		<-g.closed
	}
}

// endsWith has stop called when the lane ends; false when it has ended.
func (l *lane) endsWith(stop context.CancelCauseFunc) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.stop = stop
	return !l.mu.ended
}

func (l *lane) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.ended
}

// prepare makes the lane ready for a batch: its numbers are known, and are those of the producers. The number of
// partitions is asked after each time, since the input refuses another than the records were numbered for.
func (l *lane) prepare(ctx context.Context, t *topic, known *layout) error {
	sequence, err := l.run.Sequence(ctx, len(known.partitions), l.not)
	if err != nil {
		return err
	}
	if l.tracks != nil && sequence == l.sequence && len(l.tracks) == len(known.partitions) {
		return nil
	}
	tracks := make([]*track, len(known.partitions))
	for i, p := range known.partitions {
		tracks[i] = &track{of: len(tracks), fresh: -1, partition: &partition{
			name: p.name, index: i, topic: t, producer: sequence.Producer,
			limiter: newLimiter(exactPending, l.session.conf.maxPendingBytes),
		}}
	}
	l.mu.Lock()
	old := l.mu.open
	ended := l.mu.ended
	if !ended {
		l.mu.open = tracks
	}
	l.mu.Unlock()
	if ended {
		return fmt.Errorf("writing records of %s: %w", l.run.Shard(), errRunOver)
	}
	l.closed = l.session.dismissTracks(old)
	l.turns.renamed()
	l.topic, l.sequence, l.tracks, l.not = t, sequence, tracks, ""
	l.inherits, l.fresh = sequence.First > 0, -1
	return nil
}

// places returns the lane's partitions as a part of a batch finds them.
func (l *lane) places(w *writing) *topicPlaces {
	if len(w.topics) == 0 {
		places := &topicPlaces{topic: l.topic, places: make([]place, len(l.tracks))}
		for i, t := range l.tracks {
			places.places[i].partition, places.places[i].track = t.partition, t
		}
		w.topics = append(w.topics, places)
	}
	return w.topics[0]
}

// place gives an entry its number and its partition.
func (l *lane) place(w *writing, e *entry) {
	e.topic = l.topic.name
	e.sequence = l.sequence.Number(e.id)
	e.message.SequenceID = &e.sequence
	w.placeAt(e, l.places(w), w.exactPartition(e, len(l.tracks)))
}

// exactPartition is where an entry goes, of so many partitions. A message without a key goes where its record's partition
// key in Kinesis leads to, since the same record has to come to the same partition every time.
func (w *writing) exactPartition(e *entry, partitions int) int {
	key := e.orderKey()
	if key == "" {
		key = e.id.Origin().PartitionKey
	}
	return w.output.conf.hashing.partitionOf(key, partitions)
}

// placeAt puts an entry into a partition.
func (w *writing) placeAt(e *entry, t *topicPlaces, k int) {
	e.place = &t.places[k]
	e.place.messages++
	e.place.bytes += int64(len(e.message.Payload))
}
