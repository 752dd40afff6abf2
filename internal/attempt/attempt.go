// Package attempt is what the kinesis_pulsar input and the pulsar output share: one handing out of one batch.
//
// The input hands out a batch of one shard as an Attempt and waits for its ack. On the way through Benthos the batch may
// be filtered, split, copied, held back or sent twice; whatever comes out at the pulsar output still names the attempt,
// by the context of its messages, and each record, by one metadata entry. The output asks the attempt whether it may
// still send, and tells it what Pulsar confirmed; the input decides from that, never from the engine's per-record
// errors, what is replayed.
//
// Invariants:
//   - An attempt is open until its first ack; every later ack is ignored.
//   - Nothing of an attempt is sent once it has failed, or once the fence of its run is closed while it is open.
//     Check and send happen under one lock which the ack takes too, so no send can slip behind a failed ack.
//   - An attempt of which anything was withheld is not delivered, whatever its ack says.
//   - A record counts as confirmed only if every message that entered the output with its id was confirmed by Pulsar,
//     all of them by one and the same output. With its number (see Exact) one confirmed message is enough.
package attempt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Errors that Begin returns. In both cases nothing of the batch may be sent and nothing is lost by that: the input
// (or the next owner of the shard) delivers the records again.
var (
	// ErrStale is returned when the attempt has already failed: a late copy of it would land behind its own replay.
	ErrStale = errors.New("this delivery attempt has already failed and is being replayed")
	// ErrFenced is returned when the shard's lease can no longer be believed to be ours.
	ErrFenced = errors.New("the lease of this batch's shard is no longer held")
)

// RecordIDKey is the metadata entry that carries a record's *RecordID. Metadata stays with its record through every
// processor, while message contexts do not: batched processors give part j of their output the context of input part j.
// The key lies outside the prefix "kinesis.", so that it never becomes a message property.
const RecordIDKey = "kp_record"

// State of an attempt.
type State int

// An attempt is open until the first call of its ack function.
const (
	Open State = iota
	Acked
	Failed
)

// attempts are numbered over the whole process, which gives Begin one locking order for all of them.
var lastNumber atomic.Uint64

// Attempt is one handing out of a batch of one shard.
type Attempt struct {
	number uint64
	run    *Run

	mu struct {
		sync.Mutex
		state  State
		output any  // the pulsar output that saw this attempt
		shared bool // more than one did: their marks prove nothing
		exact  bool // see Exact
		// withheld is why an output has let messages of it pass without sending them, nil if none has; see Withhold.
		withheld error
	}
	// records[i].outcome is guarded by mu. A slice per attempt: its elements' addresses travel in the metadata.
	records []RecordID
}

// RecordID names one record of one attempt. A pointer to it travels in the record's metadata under RecordIDKey.
type RecordID struct {
	attempt *Attempt
	index   int
	origin  Origin
	outcome Outcome
}

// Outcome is what the output told of a record.
type Outcome struct {
	// Entered counts the messages with this record's id that reached the output: more than one when a processor made
	// copies, or when the same message was sent again under the open attempt.
	Entered int
	// Confirmed counts those of them that Pulsar confirmed.
	Confirmed int
	// Refused is set when the record can never be published as it is.
	Refused bool
	// HasKey tells that Key is the key that the record was last sent with (it may be empty: no key).
	HasKey bool
	Key    string
}

// New begins an attempt of n records of a shard that makes up a run of its own.
func New(shard string, fence *Fence, n int) *Attempt {
	return NewRun(shard, fence, nil).Attempt(n, func(i int) Origin { return Origin{Ordinal: int64(i)} })
}

// Run is the run of the shard that the attempt belongs to.
func (a *Attempt) Run() *Run { return a.run }

// Shard names the shard whose records these are.
func (a *Attempt) Shard() string { return a.run.shard }

// Len is the number of records handed out in the attempt.
func (a *Attempt) Len() int { return len(a.records) }

// Number tells attempts apart. Those of a run have ascending numbers, from 1.
func (a *Attempt) Number() uint64 { return a.number }

// Has tells whether the attempt holds the record of the run with that ordinal.
func (a *Attempt) Has(ordinal int64) bool {
	_, found := slices.BinarySearchFunc(a.records, ordinal, func(id RecordID, ordinal int64) int { return cmp.Compare(id.origin.Ordinal, ordinal) })
	return found
}

// ID returns the id of record i, to be put into its metadata under RecordIDKey.
func (a *Attempt) ID(i int) *RecordID { return &a.records[i] }

// Attempt returns the attempt that the record belongs to.
func (id *RecordID) Attempt() *Attempt { return id.attempt }

// Index is the record's place in its attempt, from 0.
func (id *RecordID) Index() int { return id.index }

// Ordinal is the record's place in its run, from 0, in stream order.
func (id *RecordID) Ordinal() int64 { return id.origin.Ordinal }

// Origin is what the input has told of the record.
func (id *RecordID) Origin() Origin { return id.origin }

// String is what a user sees who prints all metadata of a message.
func (id *RecordID) String() string {
	return fmt.Sprintf("%s/%d/%d", id.attempt.run.shard, id.attempt.number, id.index)
}

// MarshalText keeps processors that turn all metadata into JSON working.
func (id *RecordID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

type contextKey struct{}

// Context returns ctx naming the attempt. All messages of a batch get the same one.
func (a *Attempt) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, contextKey{}, a)
}

// FromContext returns the attempt named by a message's context, nil if there is none (another input's message).
func FromContext(ctx context.Context) *Attempt {
	a, _ := ctx.Value(contextKey{}).(*Attempt)
	return a
}

// Begin is called by an output before it sends a batch, after its last wait. It locks the attempts that the batch's
// messages belong to (usually one; duplicates and nil are skipped) and returns the function that unlocks them, to be
// called when everything was given to the client. The output is any comparable value that names the calling output.
// With an error nothing is locked and nothing may be sent.
func Begin(output any, attempts ...*Attempt) (end func(), err error) {
	locked := make([]*Attempt, 0, len(attempts))
	for _, a := range attempts {
		if a != nil && !slices.Contains(locked, a) {
			locked = append(locked, a)
		}
	}
	// One order for all, or two merged batches could wait for each other.
	slices.SortFunc(locked, func(x, y *Attempt) int { return int(int64(x.number) - int64(y.number)) })
	for _, a := range locked {
		a.mu.Lock()
	}
	end = func() {
		for _, a := range locked {
			a.mu.Unlock()
		}
	}
	for _, a := range locked {
		switch a.mu.state {
		case Acked:
			// A buffer acked early. Refusing would lose the records; the fence does not matter any more.
		case Failed:
			err = fmt.Errorf("sending batch of %s: %w", a.run.shard, ErrStale)
		default:
			if !a.run.fence.Open() {
				err = fmt.Errorf("sending batch of %s: %w", a.run.shard, ErrFenced)
			}
		}
	}
	if err != nil {
		end()
		return nil, err
	}
	for _, a := range locked {
		if a.mu.output != nil && a.mu.output != output {
			a.mu.shared = true
		}
		a.mu.output = output
	}
	return end, nil
}

// AckedEarly tells that the records were acknowledged before the output got them, as a buffer does: the checkpoint may have
// passed them already. Only between Begin and its end.
func (a *Attempt) AckedEarly() bool { return a.mu.state == Acked }

// Entered notes that a message of the record is about to be sent with the given key. Only between Begin and its end.
func (id *RecordID) Entered(key string) {
	id.outcome.Entered++
	id.outcome.Key, id.outcome.HasKey = key, true
}

// Skipped notes that a message of the record reached the output, but will not be sent in this call. It keeps a copy
// that was sent from speaking for one that was not. Only between Begin and its end.
func (id *RecordID) Skipped() { id.outcome.Entered++ }

// Exact notes that the output sends the records with their numbers: one that Pulsar has confirmed must not be sent again,
// and nothing behind one that failed was stored. Only between Begin and its end.
func (a *Attempt) Exact() { a.mu.exact = true }

// Confirm notes that Pulsar confirmed a message of the record. After the ack it does nothing.
func (id *RecordID) Confirm() {
	a := id.attempt
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.state == Open {
		id.outcome.Confirmed++
	}
}

// ConfirmAll is Confirm for many records, of few attempts, under one lock per run of records of the same attempt.
// Nil ids are skipped.
func ConfirmAll(ids []*RecordID) {
	var held *Attempt
	for _, id := range ids {
		if id == nil {
			continue
		}
		if id.attempt != held {
			if held != nil {
				held.mu.Unlock()
			}
			held = id.attempt
			held.mu.Lock()
		}
		if held.mu.state == Open {
			id.outcome.Confirmed++
		}
	}
	if held != nil {
		held.mu.Unlock()
	}
}

// Refuse notes that the record can never be published as it is. After the ack it does nothing.
func (id *RecordID) Refuse() {
	a := id.attempt
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.state == Open {
		id.outcome.Refused = true
	}
}

// Withhold is what an output does with messages of attempts that are over: failed, or open with their fence closed or
// their run ended. They may never be sent, so it takes them, sends nothing and reports no error. An error would be worse
// than useless: the outputs of Benthos that try again do so for ever, and take nothing else meanwhile, not even the replay.
//
// It returns false, and nothing may be taken so, unless all the attempts are over. Afterwards an ack without an error does
// not mean that an attempt was delivered; see Withheld.
func Withhold(attempts ...*Attempt) bool {
	return withhold(ErrFenced, attempts, (*Attempt).over)
}

// Postpone is Withhold for attempts that are not over: their messages have to wait, and the input is to hand them out again.
// For what is nobody's failure that is better than an error, which Benthos writes into the log each time, and for which its
// outputs take records away or stop everything else. It returns false if one was acknowledged before: only an error can
// bring its messages back.
func Postpone(cause error, attempts ...*Attempt) bool {
	return withhold(cause, attempts, func(a *Attempt) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.mu.state != Acked
	})
}

func withhold(cause error, attempts []*Attempt, may func(*Attempt) bool) bool {
	for _, a := range attempts {
		if !may(a) {
			return false
		}
	}
	for _, a := range attempts {
		a.mu.Lock()
		a.mu.withheld = cause
		a.mu.Unlock()
	}
	return true
}

// over tells whether nothing of the attempt may be sent any more. It never becomes untrue again.
func (a *Attempt) over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.state == Failed || a.mu.state == Open && (!a.run.fence.Open() || a.run.isOver())
}

// Withheld returns why an output has withheld messages of the attempt, nil if none has. Its ack counts as failed then.
func (a *Attempt) Withheld() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.withheld
}

// Done ends the attempt with the result of its ack. It returns false if the attempt has ended before: the first call
// wins, since some output brokers ack a batch once per error.
func (a *Attempt) Done(failed bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.state != Open {
		return false
	}
	a.mu.state = Acked
	if failed {
		a.mu.state = Failed
	}
	return true
}

// Undelivered returns what has to be replayed of a failed attempt, as ascending record indexes: the records that are
// not proven delivered, and behind each of them the later records of the same key, so that the last copies of a key
// end up in stream order. A refused record has no such tail: the rest went on without it on purpose.
//
// KeyOf gives the key that a record would be sent with if nothing changed it. It stands in for the key of a record that
// never reached the output. When the output's keys show that a mapping changes them, nobody knows that record's key,
// and everything behind it is replayed.
//
// Of records that were sent with their numbers only the undelivered ones come back, in stream order: Pulsar would drop
// the others, and would drop them all if a number above were repeated first. Such a record is delivered when any message
// of it was confirmed: it has one number, so what came again meanwhile and was not sent is the same message.
//
// AllRefused tells that it is refused records alone that stop the shard.
//
// Call it after Done(true): outcomes no longer change then.
func (a *Attempt) Undelivered(keyOf func(i int) string) (replay []int, allRefused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	remapped := false
	for i := range a.records {
		o := &a.records[i].outcome
		if o.HasKey && o.Key != keyOf(i) {
			remapped = true
			break
		}
	}
	failedKeys, anyKey := map[string]struct{}{}, false
	allRefused = true
	for i := range a.records {
		o := &a.records[i].outcome
		key := o.Key
		if !o.HasKey {
			key = keyOf(i)
		}
		delivered := !a.mu.shared && o.Confirmed > 0 && (a.mu.exact || o.Confirmed == o.Entered)
		_, tail := failedKeys[key]
		if delivered && (a.mu.exact || !tail && !anyKey) {
			continue
		}
		replay = append(replay, i)
		if o.Refused && !delivered {
			continue
		}
		allRefused = false
		failedKeys[key] = struct{}{}
		anyKey = anyKey || remapped && !o.HasKey
	}
	if a.mu.exact && len(replay) > 0 {
		// In the same call nothing behind it was sent; nothing else may be between that could have sent it.
		return replay, a.records[replay[0]].outcome.Refused
	}
	return replay, allRefused && len(replay) > 0
}
