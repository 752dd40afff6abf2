package lease

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// ErrPartitionsChanged is returned when the topic has not as many partitions as when the numbering of a shard's records
// began. Pulsar de-duplicates in each partition for itself, and a key would land in another one.
var ErrPartitionsChanged = errors.New("the topic's number of partitions has changed since the records of the shard were numbered for de-duplication")

// Numbering is how the records of a run are numbered for Pulsar's de-duplication (record_path_rules.md 25): record i of
// the run, counted from 0 behind the position that it starts from, has the number First + i in every run of the epoch.
type Numbering struct {
	// Epoch is random. A new one begins wherever it is not certain that the count has gone on without a gap, since a
	// number that is used twice makes Pulsar drop the second record without a word.
	Epoch string
	// First may be negative in the run in which the epoch began: the epoch counts from its first unconfirmed record.
	First int64
}

// Numbered is what Number needs to know of the run.
type Numbered struct {
	// Partitions is how many the topic has now.
	Partitions int64
	// Records counts the records of the run up to its confirmed position, Next is the position of the one behind.
	Records int64
	Next    checkpoint.Position
	// Not names an epoch that must not be gone on with. It may be empty.
	Not string
}

// numbers is what a lease item tells, or is to tell, of the numbering. The zero value is none.
type numbers struct {
	epoch      string
	partitions int64
	first      int64  // of the run, see Numbering
	firstHash  []byte // of the position of the epoch's first record
	// unwritten is set until the item is known to have this epoch.
	unwritten bool
}

// numbersOf reads the numbering of a lease at the start of a run. There is none if the count does not belong to the
// stored checkpoint: KCL keeps the attributes and moves the checkpoint, and so does a reset by hand.
func numbersOf(l Lease) numbers {
	if l.DedupEpoch == "" || l.DedupCount == nil || *l.DedupCount < 0 || string(l.DedupAt) != string(hashOf(l.Checkpoint)) {
		return numbers{}
	}
	return numbers{epoch: l.DedupEpoch, partitions: l.DedupParts, first: *l.DedupCount, firstHash: l.DedupFirst}
}

// hashOf is eight bytes that stand for a position. They only have to tell it from the positions around it.
func hashOf(p checkpoint.Position) []byte {
	sum := sha256.Sum256([]byte(p.Sequence + "/" + strconv.FormatInt(p.Sub, 10)))
	return sum[:8]
}

// numberMarks are the attributes that go with a checkpoint, or with the beginning of an epoch, in the same write.
type numberMarks struct {
	numbers
	count int64
	at    checkpoint.Position
}

func (m *numberMarks) write(u *update) {
	u.set(attrDedupCount, number(m.count))
	u.set(attrDedupAt, binary(hashOf(m.at)))
	if m.unwritten {
		u.set(attrDedupEpoch, text(m.epoch))
		u.set(attrDedupParts, number(m.partitions))
		u.set(attrDedupFirst, binary(m.firstHash))
	}
}

// Starts tells which record is the first of the run, as soon as it is read, and whether records in front of it may be
// gone: the one that the stored checkpoint names is. It may be called again when that turns out later. The numbering
// goes on only if the count does: at a position of which no record was counted yet, the first record has to be the same
// as ever; at any other, nothing may have been trimmed behind it.
func (h *Held) Starts(first checkpoint.Position, trimmed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := &h.mu.numbers
	if n.epoch == "" || n.unwritten {
		return
	}
	if n.first == 0 {
		trimmed = string(n.firstHash) != string(hashOf(first))
	}
	if trimmed {
		*n = numbers{}
	}
}

// Miscounted tells that records of the run, behind some that were handed out, may be gone.
func (h *Held) Miscounted() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.numbers = numbers{}
	h.numberedLocked() // whoever waits for an epoch to be written would wait for ever
}

// Number returns how the run's records are numbered. If a new epoch has to begin for that, it waits until the lease item
// has it: a number may be used only when every later owner will know of it. From then on the count moves with every
// checkpoint, in the same write.
func (h *Held) Number(ctx context.Context, r Numbered) (Numbering, error) {
	h.mu.Lock()
	n := &h.mu.numbers
	if n.epoch == "" || n.epoch == r.Not {
		*n = numbers{epoch: rand.Text()[:8], partitions: r.Partitions, first: -r.Records, firstHash: hashOf(r.Next), unwritten: true}
	}
	epoch := n.epoch
	h.mu.Unlock()
	for {
		h.mu.Lock()
		now, changed := h.mu.numbers, h.mu.numbered
		h.mu.Unlock()
		switch {
		case now.epoch != epoch:
			return Numbering{}, fmt.Errorf("numbering the records of shard %s: they were counted anew meanwhile, try again", h.lease.Key)
		case now.partitions != r.Partitions:
			return Numbering{}, fmt.Errorf("numbering the records of shard %s: %w: it was %d, it is %d; nothing is sent twice or lost while it stays so. "+
				"To go on with the new number, at the risk of copies of the records that were not confirmed last, remove the attribute %s from the shard's lease",
				h.lease.Key, ErrPartitionsChanged, now.partitions, r.Partitions, attrDedupEpoch)
		case !now.unwritten:
			return Numbering{Epoch: now.epoch, First: now.first}, nil
		}
		select {
		case h.wake <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-h.lost:
			return Numbering{}, h.Err()
		case <-ctx.Done():
			return Numbering{}, fmt.Errorf("writing the numbering of shard %s to its lease: %w", h.lease.Key, context.Cause(ctx))
		}
	}
}

// numberingWanted tells that an epoch waits to be written.
func (h *Held) numberingWanted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.numbers.unwritten
}

// marksLocked are the marks to go with a write of the position, nil if there are none. A zero position, which leaves the
// checkpoint alone, has them only when an epoch begins. It must be called with mu held.
func (h *Held) marksLocked(position checkpoint.Position) *numberMarks {
	n := h.mu.numbers
	if n.epoch == "" || position.IsZero() && !n.unwritten {
		return nil
	}
	if position.IsZero() {
		position = h.mu.stored // of which h.mu.records tells too: nothing was confirmed behind it
	}
	return &numberMarks{numbers: n, count: n.first + h.mu.records, at: position}
}

// adoptNumbersLocked notes what the item tells. It must be called with mu held.
func (h *Held) adoptNumbersLocked(l Lease) {
	n := &h.mu.numbers
	if !n.unwritten || l.DedupEpoch != n.epoch {
		return
	}
	n.unwritten = false
	h.numberedLocked()
}

// numberedLocked wakes those who wait in Number. It must be called with mu held.
func (h *Held) numberedLocked() {
	close(h.mu.numbered)
	h.mu.numbered = make(chan struct{})
}
