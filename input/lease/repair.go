package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// Reset puts a lease to a position by hand, if it still looks as it was seen, and leaves it to whoever wants it. A moment is
// stored beside LATEST and AT_TIMESTAMP; with any other position the old one goes (r5.7). What de-duplication has counted
// goes too, so that the records which are read again are also published again. The caller has seen that the lease has no
// living owner. A lease that has changed stays, without an error.
func (t *Table) Reset(ctx context.Context, seen Lease, to checkpoint.Position, at time.Time) (done bool, err error) {
	u := ifUnchanged(seen)
	u.set(attrCheckpoint, text(to.Sequence))
	u.set(attrSub, number(to.Sub))
	u.set(attrSwitches, number(0))
	if at.IsZero() {
		u.remove(attrStart)
	} else {
		u.set(attrStart, number(at.UnixMilli()))
	}
	u.remove(attrPending, attrPendingSub, attrPendingState, attrDedupCount, attrDedupAt, attrDedupFirst, attrDedupEpoch, attrDedupParts)
	a, err := t.send(ctx, u)
	if err != nil {
		return false, fmt.Errorf("resetting lease %s: %w", seen.Key, err)
	}
	return !a.failed, nil
}

// Disown takes the owner of a lease away by hand, if it still looks as it was seen. The caller has seen that the owner is
// dead. A lease that has changed stays, without an error.
func (t *Table) Disown(ctx context.Context, seen Lease) (done bool, err error) {
	a, err := t.send(ctx, ifUnchanged(seen))
	if err != nil {
		return false, fmt.Errorf("releasing lease %s: %w", seen.Key, err)
	}
	return !a.failed, nil
}

// ifUnchanged is a write by hand: it moves the counter on, so that whoever still believes in the lease finds that it is lost,
// and leaves the lease without an owner.
func ifUnchanged(seen Lease) *update {
	u := newUpdate(seen.Key)
	u.ifEqual(attrCounter, number(seen.Counter))
	u.ifAsSeen(attrOwner, seen.Owner)
	u.ifAsSeen(attrCheckpointOwner, seen.CheckpointOwner)
	u.set(attrCounter, number(seen.Counter+1))
	u.remove(attrOwner, attrCheckpointOwner, attrAsk, attrAskAt)
	return u
}
