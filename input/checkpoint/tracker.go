package checkpoint

import "fmt"

// Tracker keeps the positions of the records of one run of a shard, in stream order, and tells how far the contiguous
// prefix of confirmed ones reaches. It is not safe for concurrent use; its owner's lock guards it.
type Tracker struct {
	// entries[0] is ticket `first`: everything before it is confirmed and forgotten. Confirmed entries ahead of an
	// unconfirmed one are kept, since the position must not jump over the gap.
	entries   []entry
	first     Ticket // also the number of records in the prefix
	confirmed Position
}

type entry struct {
	position  Position
	confirmed bool
}

// Ticket names a registered record. Tickets of a tracker are consecutive, from 0: it is the record's number in the run.
type Ticket uint64

// NewTracker begins with the position that is known to be confirmed, the lease's stored checkpoint.
func NewTracker(stored Position) *Tracker { return &Tracker{confirmed: stored} }

// Register adds the next record of the shard. Positions must grow, as Kinesis delivers them; one that does not is a
// defect of the reader, and a checkpoint built on it could pass records, so it is refused.
func (t *Tracker) Register(p Position) (Ticket, error) {
	last := t.confirmed
	if n := len(t.entries); n > 0 {
		last = t.entries[n-1].position
	}
	if p.IsSentinel() || p.Compare(last) <= 0 {
		return 0, fmt.Errorf("registering position %s after %s: positions must grow", p, last)
	}
	t.entries = append(t.entries, entry{position: p})
	return t.first + Ticket(len(t.entries)) - 1, nil
}

// Confirm notes that the record of a ticket is stored in Pulsar. It may come in any order and more than once.
func (t *Tracker) Confirm(ticket Ticket) {
	if ticket < t.first || ticket-t.first >= Ticket(len(t.entries)) {
		return
	}
	t.entries[ticket-t.first].confirmed = true
	n := 0
	for n < len(t.entries) && t.entries[n].confirmed {
		n++
	}
	if n == 0 {
		return
	}
	t.confirmed = t.entries[n-1].position
	t.first += Ticket(n)
	t.entries = t.entries[n:]
	if len(t.entries) == 0 {
		t.entries = nil // lets go of the array, which would otherwise only ever grow at its end
	}
}

// Advance moves the prefix to a position behind which the shard goes on, as Kinesis told it without a record. It does
// nothing while a registered record is not confirmed, and never moves back. It tells whether it has moved.
func (t *Tracker) Advance(p Position) bool {
	if len(t.entries) > 0 || p.IsSentinel() || p.Compare(t.confirmed) <= 0 {
		return false
	}
	t.confirmed = p
	return true
}

// Confirmed is the end of the contiguous prefix: the newest position that may be checkpointed. It is the stored
// checkpoint, perhaps a sentinel, until the first record is confirmed.
func (t *Tracker) Confirmed() Position { return t.confirmed }

// Records counts the records of the prefix, so of the run up to Confirmed.
func (t *Tracker) Records() int64 { return int64(t.first) }

// Next is the position of the first record behind the prefix, none if no record is registered there.
func (t *Tracker) Next() Position {
	if len(t.entries) == 0 {
		return Position{}
	}
	return t.entries[0].position
}

// Pending counts the registered records that are not yet part of the prefix.
func (t *Tracker) Pending() int { return len(t.entries) }
