package attempt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrNoSequence is returned when the records of a run have no numbers, since it is not an input's.
var ErrNoSequence = errors.New("the records of this input are not numbered")

// Sequence is how the records of a run are numbered for Pulsar's de-duplication, which remembers for each name of a
// producer the last number that it has stored, and drops what does not lie above.
type Sequence struct {
	// Producer is the name to send with. Whoever goes on with the shard gets the same, unless the count had to begin anew.
	Producer string
	// First is added to a record's place in its run. It may be negative, the sum is not.
	First int64
}

// Number is the number of the record. It is the same in every attempt, and in every run with this name of a producer.
func (s Sequence) Number(id *RecordID) int64 { return s.First + id.origin.Ordinal }

// Sequencer numbers the records of a run. It belongs to the input.
type Sequencer interface {
	// Sequence returns the numbering for a topic of so many partitions. It may have to write to the lease table first,
	// and fails when the number of partitions is another than before. Not names a producer that must not be gone on
	// with: the numbering begins anew then, with what is not confirmed. It may be empty.
	Sequence(ctx context.Context, partitions int, not string) (Sequence, error)
}

// Run is one run of a shard: what its attempts have in common.
type Run struct {
	shard     string
	fence     *Fence
	sequencer Sequencer

	mu struct {
		sync.Mutex
		closers map[any]func() (done <-chan struct{})
		over    bool
	}
}

// NewRun begins a run under a fence. Without a sequencer its records have no numbers.
func NewRun(shard string, fence *Fence, sequencer Sequencer) *Run {
	return &Run{shard: shard, fence: fence, sequencer: sequencer}
}

// Shard names the shard.
func (r *Run) Shard() string { return r.shard }

// Sequence numbers the records of the run; see Sequencer.
func (r *Run) Sequence(ctx context.Context, partitions int, not string) (Sequence, error) {
	if r.sequencer == nil {
		return Sequence{}, fmt.Errorf("sending records of %s: %w", r.shard, ErrNoSequence)
	}
	return r.sequencer.Sequence(ctx, partitions, not)
}

// Origin is what the output may have to know of a record beside its message.
type Origin struct {
	// Ordinal is the record's place in its run, counted from 0 in stream order over all records that were handed out.
	Ordinal int64
	// PartitionKey is the one that Kinesis has of it.
	PartitionKey string
	// SequenceNumber is that of the Kinesis record, in decimal digits.
	SequenceNumber string
	// Sub is the record's place in the Kinesis record that holds it with others, from 0; -1 if it is alone in it.
	Sub int64
	// Arrival is when Kinesis got the record; the zero time where that is not known.
	Arrival time.Time
}

// Attempt hands out n records of the run.
func (r *Run) Attempt(n int, origin func(i int) Origin) *Attempt {
	a := &Attempt{number: lastNumber.Add(1), run: r, records: make([]RecordID, n)}
	for i := range a.records {
		o := origin(i)
		a.records[i] = RecordID{attempt: a, index: i, origin: o}
	}
	return a
}

// OnClose registers what ends the producers that an owner has of this run alone; it replaces the owner's last one. The
// function must not wait; done is closed when nothing of them can reach Pulsar any more. It may be called while the run
// goes on: the owner makes producers anew, and registers again, when it is given more. OnClose returns false, and nothing
// is registered, when the run is over.
func (r *Run) OnClose(owner any, end func() (done <-chan struct{})) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.over {
		return false
	}
	if r.mu.closers == nil {
		r.mu.closers = map[any]func() (done <-chan struct{}){}
	}
	r.mu.closers[owner] = end
	return true
}

// Forget takes back what the owner has registered.
func (r *Run) Forget(owner any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.closers, owner)
}

// CloseProducers ends the producers that outputs have of this run alone, so that its next owner gets them. It returns
// when they have ended, or with ctx.
func (r *Run) CloseProducers(ctx context.Context) error {
	r.mu.Lock()
	closers := r.mu.closers
	r.mu.closers = nil
	r.mu.Unlock()
	var ending []<-chan struct{}
	for _, end := range closers {
		ending = append(ending, end())
	}
	for _, done := range ending {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("closing the producers of %s: %w", r.shard, context.Cause(ctx))
		}
	}
	return nil
}

// isOver tells whether the run has ended.
func (r *Run) isOver() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.over
}

// End ends the run: its producers begin to end, and none is registered any more. It does not wait.
func (r *Run) End() {
	r.mu.Lock()
	r.mu.over = true
	closers := r.mu.closers
	r.mu.closers = nil
	r.mu.Unlock()
	for _, end := range closers {
		end()
	}
}
