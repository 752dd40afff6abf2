package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// evidence is what the account goes by. None of it comes from a worker's own mouth.
type evidence struct {
	records  map[string][]kinesistest.Record // by shard, in stream order
	messages []message                       // those of a partition in its order
	history  history
	// ends are when workers that were killed or paused certainly stood still: what had arrived by then they may have delivered
	// beyond the checkpoint.
	ends map[string]time.Time
	// failover is set where the machine may be so busy that living workers cannot renew their leases in time. Then a lease
	// may be taken from one that has been silent for so long, or taken back by itself, with the copies that brings.
	failover time.Duration
}

// endOf is up to when the worker before a tenure may have delivered what lies behind the tenure's checkpoint; false if
// nothing excuses that the lease was taken.
func (e evidence) endOf(t tenure) (end time.Time, excused bool) {
	if end, ended := e.ends[t.before]; ended {
		return end, true
	}
	return t.began, e.stalled(t)
}

// stalled tells whether a lease was lost for no other reason than that nobody renewed it. Then another took it; or its owner found
// it unchanged in the table, but more than its share, and released it (r3.6): with the checkpoint of its last renewal, and
// not with what it had delivered until its fence closed.
func (e evidence) stalled(t tenure) bool {
	if e.failover == 0 {
		return false
	}
	if t.how == found {
		return t.lapsed >= e.failover-max(time.Second, e.failover/10)
	}
	_, ended := e.ends[t.before]
	return t.how == forced && !ended && (t.before == t.worker || t.silent >= e.failover)
}

// account is every record against what the topic holds. It balances when there are no findings.
type account struct {
	records, messages int
	repeated          int // records with more than one copy, all explained
	exposed           int // records that the ends of workers may have repeated
	late              int // messages that a paused worker's client still had, and sent when it went on
	starved           int // the same of a worker that the machine gave no time, and that lost its lease by that
	resent            int // messages that such a client had sent before, and sent again when it went on
	handed            int // tenures that began with a gift
	freed             int // that began with a lease somebody had released
	forced            int // that began by force
	stalled           int // of all, from workers that the machine gave no time
	findings          map[string][]string
}

// clock is the format of times in findings.
const clock = "04:05.000"

// tell lists tenures for a finding.
func tell(tenures []tenure) string {
	var list []string
	for _, t := range tenures {
		list = append(list, fmt.Sprintf("%s %s-%s from %.60s, by %s", t.worker, t.began.Format(clock), t.ended.Format(clock), t.from, t.how))
	}
	return strings.Join(list, "; ")
}

// What can be found.
const (
	foundLost      = "records are not in the topic"
	foundForeign   = "messages are no record's"
	foundDifferent = "messages differ from their record"
	foundScattered = "keys are in several partitions"
	foundRepeated  = "records have copies that nothing explains"
	foundFirst     = "records came for the first time before their predecessors"
	foundLast      = "records lie for the last time before their predecessors"
	foundOutside   = "messages were published outside of a tenure of their worker"
	foundWrites    = "writes that no worker may make"
	foundRobbed    = "leases were taken from workers that had not ended"
)

// settle makes the account.
func settle(e evidence) account {
	a := account{messages: len(e.messages), findings: map[string][]string{}}
	for _, text := range e.history.wrong {
		a.add(foundWrites, "%s", text)
	}
	for shard, list := range e.history.tenures {
		for _, t := range list {
			switch t.how {
			case given:
				a.handed++
			case found:
				a.freed++
				if e.stalled(t) {
					a.stalled++
				}
			case forced:
				a.forced++
				if e.stalled(t) {
					a.stalled++
				} else if _, excused := e.endOf(t); !excused {
					a.add(foundRobbed, "%s of %s by %s after %s of silence", shard, t.before, t.worker, t.silent.Round(time.Millisecond))
				}
			}
		}
	}
	copies := a.collect(e)
	for shard, records := range e.records {
		a.settleShard(shard, records, copies, e)
	}
	a.settleKeys(e, copies)
	return a
}

// copies is what the topic holds of one record.
type copies struct {
	count       int
	first, last int      // offsets among all messages
	by          []string // who published each, and when
}

// collect finds the record of each message.
func (a *account) collect(e evidence) map[name]*copies {
	type home struct {
		record kinesistest.Record
		shard  string
	}
	homes := map[name]home{}
	for shard, records := range e.records {
		a.records += len(records)
		for _, r := range records {
			homes[nameOf(r)] = home{r, shard}
		}
	}
	found, partition := map[name]*copies{}, map[string]int{}
	sent := map[message]bool{}
	for i, m := range e.messages {
		h, known := homes[m.name]
		if !known {
			a.add(foundForeign, "%v from %s", m.name, m.worker)
			continue
		}
		if m.payload != string(h.record.Data) {
			a.add(foundDifferent, "%s is %q", h.record.Data, m.payload)
		}
		if p, there := partition[m.key]; there && p != m.partition {
			a.add(foundScattered, "%s in %d and %d", m.key, p, m.partition)
		}
		partition[m.key] = m.partition
		c := found[m.name]
		// What a paused worker's client sends when it goes on lies behind what others have sent meanwhile. Nobody can
		// recall it: it is counted, and otherwise nothing but a copy too many. A client that was paused for longer than
		// its keep-alive, 30 s, connects anew before it reads the confirmations that wait for it, and sends all that it
		// had under way again: the same messages, with their first time of publication.
		if _, ended := e.ends[m.worker]; ended && sent[m] {
			a.resent++
			continue
		}
		sent[m] = true
		if late := a.settleTenure(h.record, h.shard, m, e); late && c != nil {
			continue
		}
		if c == nil {
			c = &copies{first: i}
			found[m.name] = c
		}
		c.count++
		c.last = i
		c.by = append(c.by, m.worker+" at "+m.published.Format(clock))
	}
	return found
}

// clockStep is how much earlier than it was a message may seem to be published: its time has whole milliseconds.
const clockStep = time.Millisecond

// settleTenure checks that a message was published while its worker had the lease, and tells whether it is one that the
// client of a paused worker had been handed before the pause.
func (a *account) settleTenure(r kinesistest.Record, shard string, m message, e evidence) (late bool) {
	tenures := e.history.tenures[shard]
	for _, t := range tenures {
		if t.worker == m.worker && !m.published.Add(clockStep).Before(t.began) && (t.over == lasting || !m.published.After(t.ended)) {
			return false
		}
	}
	for i, t := range tenures[:max(0, len(tenures)-1)] {
		// What it does not get to for as long as a lease outlives its fence is the same for a living worker.
		if t.worker == m.worker && e.stalled(tenures[i+1]) && m.published.After(t.ended) && !r.Arrival.After(t.ended) {
			a.starved++
			return true
		}
	}
	if end, ended := e.ends[m.worker]; ended && m.published.After(end) && !r.Arrival.After(end) {
		a.late++
		return true
	}
	a.add(foundOutside, "%s of %s by %s at %s", m.payload[:min(20, len(m.payload))], shard, m.worker, m.published.Format(clock))
	return false
}

// settleShard checks that all records of a shard are there, and that each copy has a reason.
func (a *account) settleShard(shard string, records []kinesistest.Record, found map[name]*copies, e evidence) {
	allowed := make([]int, len(records))
	for _, t := range e.history.tenures[shard] {
		end, excused := e.endOf(t)
		if t.how == given || !excused {
			continue
		}
		from := 1 + slices.IndexFunc(records, func(r kinesistest.Record) bool { return r.SequenceNumber == t.from })
		for i := from; i < len(records) && !records[i].Arrival.After(end); i++ {
			allowed[i]++
		}
	}
	for i, r := range records {
		if allowed[i] > 0 {
			a.exposed++
		}
		c := found[nameOf(r)]
		switch {
		case c == nil:
			a.add(foundLost, "%s of %s, number %d of %d, arrived %s", r.Data[:min(20, len(r.Data))], shard, i+1, len(records), r.Arrival.Format(clock))
		case c.count > 1+allowed[i]:
			a.add(foundRepeated, "%s of %s, number %d of %d, arrived %s: %d copies, %d allowed, by %s; tenures: %s",
				r.Data[:min(20, len(r.Data))], shard, i+1, len(records), r.Arrival.Format(clock), c.count, 1+allowed[i], strings.Join(c.by, ", "), tell(e.history.tenures[shard]))
		case c.count > 1:
			a.repeated++
		}
	}
}

// settleKeys checks the order of each key over all shards it ever was in.
func (a *account) settleKeys(e evidence, found map[name]*copies) {
	byKey := map[string][]kinesistest.Record{}
	for _, records := range e.records {
		for _, r := range records {
			byKey[r.PartitionKey] = append(byKey[r.PartitionKey], r)
		}
	}
	for _, records := range byKey {
		// Sequence numbers grow over a reshard, too; all have the same number of digits.
		slices.SortFunc(records, func(x, y kinesistest.Record) int { return strings.Compare(x.SequenceNumber, y.SequenceNumber) })
		var before *copies
		for _, r := range records {
			c := found[nameOf(r)]
			if c == nil {
				continue
			}
			if before != nil && c.first < before.first {
				a.add(foundFirst, "%s", r.Data[:min(20, len(r.Data))])
			}
			if before != nil && c.last < before.last {
				a.add(foundLast, "%s", r.Data[:min(20, len(r.Data))])
			}
			before = c
		}
	}
}

func nameOf(r kinesistest.Record) name { return name{r.SequenceNumber, r.PartitionKey} }

func (a *account) add(what, format string, values ...any) {
	a.findings[what] = append(a.findings[what], fmt.Sprintf(format, values...))
}

// String is the account for people: all findings, with some examples of each.
func (a account) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d records, %d messages; %d repeated of %d exposed; %d late, %d starved, %d sent again by a client; tenures: %d free, %d given, %d forced, %d of them by a stall",
		a.records, a.messages, a.repeated, a.exposed, a.late, a.starved, a.resent, a.freed, a.handed, a.forced, a.stalled)
	for _, what := range slices.Sorted(maps.Keys(a.findings)) {
		list := a.findings[what]
		fmt.Fprintf(&b, "\n  %s: %d", what, len(list))
		for _, example := range list[:min(5, len(list))] {
			fmt.Fprintf(&b, "\n    %s", example)
		}
	}
	return b.String()
}

// balance makes the account of a fleet, and fails the test unless it balances. At full size and for figures the machine has
// to be quiet enough for no lease to be lost by itself.
func (f *fleet) balance(ends map[string]time.Time) account {
	f.t.Helper()
	e := evidence{records: f.kinesis.Records(streamName), messages: f.topic.messages(), history: f.history(), ends: ends}
	if !*full && !*figures {
		e.failover = f.settings.failover
	}
	a := settle(e)
	if len(a.findings) > 0 {
		f.t.Fatalf("the account does not balance: %s", a)
	}
	f.t.Logf("the account balances: %s", a)
	return a
}

// noneRepeated fails the test if a record has two copies, or a lease was taken by force.
func (f *fleet) noneRepeated() account {
	f.t.Helper()
	a := f.balance(nil)
	if a.stalled == 0 && (a.messages != a.records || a.forced > 0) {
		f.t.Errorf("%d messages of %d records, %d leases taken by force", a.messages, a.records, a.forced)
	}
	return a
}
