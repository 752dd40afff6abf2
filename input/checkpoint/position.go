// Package checkpoint says what may be checkpointed: positions in a shard as KCL orders and writes them, and the
// contiguous prefix of confirmed records.
//
// Invariants:
//   - I1: what Tracker.Confirmed returns never passes a record that was registered and not confirmed.
//   - Positions are ordered as KCL orders them: AT_TIMESTAMP < TRIM_HORIZON < LATEST < any sequence number < SHARD_END,
//     sequence numbers as unsigned integers of any size, ties broken by the sub-sequence number.
package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// The sentinels that KCL writes in place of a sequence number.
const (
	AtTimestamp = "AT_TIMESTAMP"
	TrimHorizon = "TRIM_HORIZON"
	Latest      = "LATEST"
	ShardEnd    = "SHARD_END"
)

// ErrInvalid is returned for a checkpoint that is neither a sentinel nor a decimal sequence number.
var ErrInvalid = errors.New("neither a sequence number nor one of AT_TIMESTAMP, TRIM_HORIZON, LATEST, SHARD_END")

// Position is a place in a shard: a sequence number or a sentinel, and the index of a user record inside a record
// aggregated by the Kinesis Producer Library (0 for plain records and sentinels). The zero value is no position.
type Position struct {
	// Sequence is a sentinel, or decimal digits without leading zeros.
	Sequence string
	// Sub is the sub-sequence number, from 0.
	Sub int64
}

// Parse checks a checkpoint as it stands in a lease item.
func Parse(sequence string, sub int64) (Position, error) {
	switch sequence {
	case AtTimestamp, TrimHorizon, Latest, ShardEnd:
		return Position{Sequence: sequence, Sub: sub}, nil
	}
	if sequence == "" || strings.Trim(sequence, "0123456789") != "" {
		return Position{}, fmt.Errorf("parsing checkpoint %q: %w", sequence, ErrInvalid)
	}
	if sub < 0 {
		return Position{}, fmt.Errorf("parsing checkpoint %q: sub-sequence number %d is negative", sequence, sub)
	}
	return Position{Sequence: canonical(sequence), Sub: sub}, nil
}

func canonical(digits string) string {
	if t := strings.TrimLeft(digits, "0"); t != "" {
		return t
	}
	return "0"
}

// IsZero tells whether p is no position at all.
func (p Position) IsZero() bool { return p.Sequence == "" }

// IsSentinel tells whether p is anything but a sequence number.
func (p Position) IsSentinel() bool {
	return p.Sequence == "" || p.Sequence[0] < '0' || p.Sequence[0] > '9'
}

// rank of the classes of positions; all sequence numbers share one.
func (p Position) rank() int {
	switch p.Sequence {
	case "":
		return -4
	case AtTimestamp:
		return -3
	case TrimHorizon:
		return -2
	case Latest:
		return -1
	case ShardEnd:
		return 1
	}
	return 0
}

// Compare orders positions as KCL does; no position at all comes first.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.rank(), q.rank()); c != 0 || p.rank() != 0 {
		return c
	}
	if c := CompareSequence(p.Sequence, q.Sequence); c != 0 {
		return c
	}
	return cmp.Compare(p.Sub, q.Sub)
}

// CompareSequence compares two decimal sequence numbers without leading zeros. They have up to 56 digits, so the longer
// one is the greater, and no big integers are needed on a path that sees every record.
func CompareSequence(a, b string) int {
	if c := cmp.Compare(len(a), len(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// String is the form used in logs: the sequence, and the sub-sequence number where there is one.
func (p Position) String() string {
	switch {
	case p.IsZero():
		return "none"
	case p.Sub == 0 || p.IsSentinel():
		return p.Sequence
	}
	return fmt.Sprintf("%s/%d", p.Sequence, p.Sub)
}
