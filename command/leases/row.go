// Package leases looks at a lease table as a person does who wonders why a shard does not move: who owns what, where it stands,
// how old that is, what it waits for, and what a KCL application would make of the table at a hand-back. It works on the tables
// of the Java connector and of any KCL.
//
// Looking changes nothing. The repairs (a shard put to a position, the leases of a dead worker released) are conditional on the
// rows being as they were looked at, and refused while an owner is seen alive.
package leases

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

// State is what a lease is doing, as far as the table tells.
type State string

// The states of leases.
const (
	// Owned: a worker holds it. Whether that worker lives is told by its counter, which moves.
	Owned State = "owned"
	// Free: nobody holds it; the next worker that looks takes it.
	Free State = "free"
	// Waiting: its parents have not been read to their end.
	Waiting State = "waiting"
	// Ended: read to the end.
	Ended State = "ended"
	// HandedOver: KCL 3.x is passing it on.
	HandedOver State = "handed over"
	// Missing: the stream has the shard, and the table has no row.
	Missing State = "missing"
	// Broken: the row cannot be understood.
	Broken State = "broken"
)

// Row is one shard.
type Row struct {
	Shard    string   `json:"shard"`
	State    State    `json:"state"`
	Owner    string   `json:"owner,omitempty"`
	Program  string   `json:"program,omitempty"` // kinesis-pulsar or KCL, of the owner
	Counter  int64    `json:"counter"`
	Position string   `json:"position,omitempty"`
	Start    string   `json:"start,omitempty"` // what LATEST or AT_TIMESTAMP stands for
	Parents  []string `json:"parents,omitempty"`
	Children []string `json:"children,omitempty"`
	WaitsFor []string `json:"waitsFor,omitempty"`
	AskedBy  string   `json:"askedBy,omitempty"`
	// Arrived is when Kinesis got the next record to read, and Lag how far that is behind the tip of the shard. They are
	// nil when nobody has asked Kinesis.
	Arrived *time.Time     `json:"arrived,omitempty"`
	Lag     *time.Duration `json:"lagNanoseconds,omitempty"`
	// Moved is when the counter was last seen to move; only when the table is watched.
	Moved *time.Time `json:"moved,omitempty"`
	// Closed tells that a reshard has ended the shard.
	Closed bool `json:"closed,omitempty"`
	// Notes are what a person should know.
	Notes []string `json:"notes,omitempty"`

	lease lease.Lease
}

// Rows puts a table and a listing of the stream's shards side by side. Shards may be nil, when the stream is not asked.
func Rows(s lease.Snapshot, shards []shard.Shard) []Row {
	byKey := make(map[string]lease.Lease, len(s.Leases))
	for _, l := range s.Leases {
		byKey[l.Key] = l
	}
	listed := make(map[string]shard.Shard, len(shards))
	for _, sh := range shards {
		listed[sh.ID] = sh
	}
	var rows []Row
	for _, l := range s.Leases {
		r := row(l, byKey)
		if shards != nil {
			sh, has := listed[l.Key]
			r.Closed = sh.Closed
			if !has && !l.Ended() {
				r.Notes = append(r.Notes, "Kinesis lists no such shard: retention has removed it, or it belongs to another stream")
			}
		}
		rows = append(rows, r)
	}
	for _, b := range s.Broken {
		rows = append(rows, Row{Shard: b.Key, State: Broken, Notes: []string{b.Err.Error()}})
	}
	for _, sh := range shards {
		if _, has := byKey[sh.ID]; !has && !slices.ContainsFunc(s.Broken, func(b lease.Broken) bool { return b.Key == sh.ID }) {
			rows = append(rows, Row{Shard: sh.ID, State: Missing, Parents: sh.Parents, Closed: sh.Closed, Notes: missing(sh, byKey)})
		}
	}
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Compare(a.Shard, b.Shard) })
	return rows
}

func row(l lease.Lease, all map[string]lease.Lease) Row {
	r := Row{
		Shard: l.Key, Owner: l.Owner, Counter: l.Counter, Position: l.Checkpoint.String(), Parents: l.Parents, Children: l.Children,
		AskedBy: l.Ask, lease: l,
	}
	if !l.Start.IsZero() {
		r.Start = l.Start.UTC().Format(time.RFC3339Nano)
	}
	if l.Owner != "" {
		r.Program = "KCL"
		if l.IsOurs() {
			r.Program = "kinesis-pulsar"
		}
	}
	waits := shard.WaitsFor(l, all)
	switch {
	case l.Ended():
		r.State = Ended
	case l.CheckpointOwner != "":
		r.State = HandedOver
		r.Notes = append(r.Notes, fmt.Sprintf("KCL 3.x passes it from %s to %s", l.CheckpointOwner, cmp.Or(l.Owner, "nobody")))
	case len(waits) > 0:
		r.State, r.WaitsFor = Waiting, waits
	case l.Owner == "":
		r.State = Free
	default:
		r.State = Owned
	}
	return r
}

// missing says why a shard without a row may be all right.
func missing(sh shard.Shard, leases map[string]lease.Lease) []string {
	for _, l := range leases {
		if slices.Contains(l.Parents, sh.ID) {
			return []string{"its children have rows: it was read and cleaned up"}
		}
	}
	for _, p := range sh.Parents {
		if l, has := leases[p]; has && !l.Ended() {
			return []string{"its row is made when " + p + " has been read to its end"}
		}
	}
	if sh.Closed {
		return []string{"closed before the first start, or cleaned up"}
	}
	return []string{"workers make its row within minutes"}
}

// Handback says what a KCL application would stumble over if it took the table back.
func Handback(s lease.Snapshot) (notes []string) {
	var evaluated, foreign, handed []string
	for _, l := range s.Leases {
		switch l.Checkpoint.Sequence {
		case checkpoint.Latest, checkpoint.AtTimestamp:
			evaluated = append(evaluated, l.Key)
		}
		if l.CheckpointOwner != "" {
			handed = append(handed, l.Key)
		}
	}
	for _, f := range s.Foreign {
		foreign = append(foreign, strings.TrimSpace(f.EntityType+" "+f.Key))
	}
	if len(evaluated) > 0 {
		notes = append(notes, fmt.Sprintf("%s at LATEST or AT_TIMESTAMP: a KCL begins there at what that means when it starts, not at the moment that is stored here; wait until they have a position", Some(evaluated)))
	}
	if len(foreign) > 0 {
		notes = append(notes, fmt.Sprintf("items that are no leases (%s): KCL 3.5 and later keeps such here, and every scan of KCL 2.x fails at them; delete them before 2.x comes back", Some(foreign)))
	}
	if len(handed) > 0 {
		notes = append(notes, fmt.Sprintf("%s with a checkpointOwner: a hand-over of KCL 3.x that has not ended", Some(handed)))
	}
	for _, b := range s.Broken {
		notes = append(notes, fmt.Sprintf("%s cannot be understood (%v): KCL 2.x reads no lease at all while it is there", Printable(b.Key), b.Err))
	}
	return notes
}

// traces are what tells of KCL 3.x, each kind once.
func traces(m lease.Marks) (all []string) {
	for _, kind := range []struct {
		is   lease.MarkKind
		says string
	}{
		{lease.MarkCoordinatorState, "the table %s beside this one"},
		{lease.MarkIndex, "the index %s"},
		{lease.MarkEntityType, "items that are no leases (%s)"},
		{lease.MarkThroughput, "its measure of throughput in %s"},
		{lease.MarkCheckpointOwner, "a hand-over of %s"},
	} {
		var keys []string
		for _, mark := range m.Marks {
			if mark.Kind == kind.is {
				keys = append(keys, mark.Key)
			}
		}
		if len(keys) > 0 {
			all = append(all, fmt.Sprintf(kind.says, Some(keys)))
		}
	}
	if m.ClientVersion != "" {
		all = append(all, "the client version "+m.ClientVersion)
	}
	return all
}

// Some names the first few, sorted, and counts the others.
func Some(names []string) string {
	names = slices.Sorted(slices.Values(names))
	const few = 3
	shown := make([]string, 0, few)
	for _, n := range names[:min(few, len(names))] {
		shown = append(shown, Printable(n))
	}
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(shown, ", "), len(names)-few)
	}
	return strings.Join(shown, ", ")
}

// Printable is a text from a table without anything that moves the cursor of a terminal: whoever may write to a table writes to the
// screens of those who look at it otherwise.
func Printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}
