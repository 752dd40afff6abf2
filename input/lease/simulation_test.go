package lease

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// simulation is a whole fleet without any I/O: a table, workers of ours that plan by makePlan and judgeAsks, and KCL 2.x
// workers that take by KCL's formula. Time goes in scan rounds of a third of the failover time. Writes are conditional as
// the real ones are, and those of all workers of a round are interleaved at random.
type simulation struct {
	r        *rand.Rand
	failover time.Duration
	now      time.Duration
	table    map[string]Lease
	workers  []*simulated
	kcl      []*simulatedKCL
	// stale is the probability that a worker scans the table as it was a round ago.
	stale float64
	// inTurn lets the workers write one after the other, in the order of their names, instead of interleaved.
	inTurn   bool
	previous map[string]Lease
	// What happened: leases that got an owner while they had none, and that went from one live owner to another.
	takes, gives, steals, failed, asks, refusals, rescans int
}

// simulated is a worker of ours.
type simulated struct {
	s       *simulation
	name    string
	max     int
	known   map[string]observation
	busy    map[string]bool
	asked   map[string]time.Duration
	giving  map[string]string
	stoleAt time.Duration
	since   time.Duration
	thefts  []time.Duration
	scanned bool
	dead    bool
	// refused is set when an ask was refused since the last scan: the plan after that asks for another scan.
	refused bool
	plan    decisions
}

func newSimulation(seed uint64, failover time.Duration) *simulation {
	return &simulation{r: rand.New(rand.NewPCG(seed, 1)), failover: failover, now: time.Hour, table: map[string]Lease{}}
}

func (s *simulation) addLeases(n int, edit ...func(*Lease)) {
	for range n {
		l := Lease{Key: fmt.Sprintf("shardId-%012d", len(s.table)), Checkpoint: at("1"), Stream: testStream}
		for _, e := range edit {
			e(&l)
		}
		s.table[l.Key] = l
	}
}

func (s *simulation) addWorkers(n int, edit ...func(*simulated)) {
	for range n {
		w := &simulated{
			s: s, name: fmt.Sprintf("host%d-%04x", len(s.workers), s.r.IntN(1<<16)),
			known: map[string]observation{}, busy: map[string]bool{}, asked: map[string]time.Duration{}, giving: map[string]string{},
		}
		for _, e := range edit {
			e(w)
		}
		s.workers = append(s.workers, w)
	}
}

func (w *simulated) view() view {
	return view{
		worker: w.name, stream: testStream, failover: w.s.failover, max: w.max, busy: w.busy, asked: w.asked, giving: w.giving,
		stoleAt: w.stoleAt, since: w.since, now: w.s.now,
		isOwn:   func(l Lease) bool { return l.Acquisition == w.name+"#own" },
		mayTake: func(l Lease) bool { return !l.Ended() },
	}
}

func (s *simulation) alive() (alive []*simulated) {
	for _, w := range s.workers {
		if !w.dead {
			alive = append(alive, w)
		}
	}
	return alive
}

// round is one scan period: everybody scans, takes and asks; then all owners renew and answer asks; KCL's takers run
// when their time has come.
func (s *simulation) round() {
	snapshot := maps.Clone(s.table)
	for _, w := range s.alive() {
		seen := snapshot
		if s.previous != nil && s.r.Float64() < s.stale {
			seen = s.previous
		}
		if !w.scanned {
			w.scanned, w.since, w.stoleAt, seen = true, s.now, s.now, snapshot // the first scan is consistent
		}
		w.known = observe(w.known, slices.Collect(maps.Values(seen)), s.failover, s.now)
		w.refused = false
		for key := range w.asked {
			// Whoever asks looks at the lease all the time: another may have taken it, or its shard has ended.
			if l := s.table[key]; l.Ask != w.name {
				delete(w.asked, key)
				w.known[key] = observation{lease: l, seenAt: s.now}.refused(s.failover, s.now)
			}
		}
	}
	s.previous = snapshot
	// Everybody renews once, half of the leases in each half of the round; at the end of the first half come the writes
	// that wait for failover/6, and the scan of those whose first tries have met others.
	keys := slices.Sorted(maps.Keys(s.table))
	s.r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for _, half := range [][]string{keys[:len(keys)/2], keys[len(keys)/2:]} {
		s.write()
		s.renew(half)
		s.now += s.failover / 6
		for _, w := range s.alive() {
			if w.plan.contested || w.refused {
				s.rescans++
				w.refused = false
				w.known = observe(w.known, slices.Collect(maps.Values(s.table)), s.failover, s.now)
			}
		}
	}
	for _, k := range s.kcl {
		k.run()
	}
}

// write lets all workers carry out their plans until no plan says any more.
func (s *simulation) write() {
	active := s.alive()
	for _, w := range active {
		w.plan = makePlan(w.known, w.view())
		w.noteTheft()
	}
	for len(active) > 0 {
		i := 0
		if !s.inTurn {
			i = s.r.IntN(len(active))
		}
		if !active[i].step() {
			active = slices.Delete(active, i, i+1)
		}
	}
}

func (w *simulated) noteTheft() {
	if w.plan.stolen {
		w.stoleAt = w.s.now
		w.thefts = append(w.thefts, w.s.now)
	}
}

// thefts are those of our workers.
func (s *simulation) thefts() (n int) {
	for _, w := range s.workers {
		n += len(w.thefts)
	}
	return n
}

// step does one write of the plan; when all of it is done, there is another plan.
func (w *simulated) step() bool {
	d := &w.plan
	switch {
	case len(d.take) > 0:
		l := d.take[0]
		d.take = d.take[1:]
		w.take(l)
	case len(d.ask) > 0:
		l := d.ask[0]
		d.ask = d.ask[1:]
		w.ask(l)
	default:
		w.plan = makePlan(w.known, w.view())
		w.noteTheft()
		return len(w.plan.take)+len(w.plan.ask) > 0
	}
	return true
}

func (w *simulated) take(seen Lease) {
	s := w.s
	l := s.table[seen.Key]
	if l.Counter != seen.Counter || l.Owner != seen.Owner {
		s.failed++
		w.known[l.Key] = corrected(l, s.now)
		return
	}
	if l.Owner == "" || !s.isAlive(l.Owner) {
		s.takes++
	} else {
		s.steals++
	}
	l.Owner, l.Acquisition, l.Ask = w.name, w.name+"#own", ""
	l.Counter++
	s.table[l.Key] = l
	w.busy[l.Key] = true
	w.known[l.Key] = observation{lease: l, seenAt: s.now, movedAt: s.now}
}

func (w *simulated) ask(seen Lease) {
	s := w.s
	s.asks++
	l := s.table[seen.Key]
	if l.Counter != seen.Counter || l.Owner != seen.Owner || asker(l) != "" {
		// r4.1: once more with the item that the condition failed on.
		s.failed++
		if l.Owner != seen.Owner || asker(l) != "" {
			w.known[l.Key] = corrected(l, s.now)
			return
		}
	}
	l.Ask, l.AskAt = w.name, l.Counter
	s.table[l.Key] = l
	w.asked[l.Key] = s.now
}

func (s *simulation) isAlive(owner string) bool {
	return slices.ContainsFunc(s.workers, func(w *simulated) bool { return w.name == owner && !w.dead }) ||
		slices.ContainsFunc(s.kcl, func(k *simulatedKCL) bool { return k.name == owner && !k.dead })
}

// renew lets every owner renew its leases and answer the asks that it finds, some at a time.
func (s *simulation) renew(keys []string) {
	for _, w := range s.workers {
		if w.dead {
			continue
		}
		var asked []Lease
		for _, key := range keys {
			l := s.table[key]
			switch {
			case w.busy[key] && l.Owner != w.name: // stolen
				delete(w.busy, key)
				w.known[key] = corrected(l, s.now)
				continue
			case !w.busy[key]:
				continue
			}
			l.Counter++
			s.table[key] = l
			if l.Ask != "" {
				asked = append(asked, l)
			}
		}
		for chunk := range slices.Chunk(asked, max(1, len(asked)/8)) {
			grant, refuse := judgeAsks(w.known, w.view(), chunk)
			for _, l := range grant {
				w.giving[l.Key] = l.Ask
			}
			for _, l := range refuse {
				s.refusals++
				w.answer(l, false)
			}
		}
		for key := range w.giving {
			w.answer(s.table[key], true)
		}
		clear(w.giving)
	}
	for _, k := range s.kcl {
		k.renew()
	}
}

// answer gives the lease to who asked for it, or removes the ask.
func (w *simulated) answer(l Lease, give bool) {
	s := w.s
	to := slices.IndexFunc(s.workers, func(x *simulated) bool { return x.name == l.Ask })
	b := s.workers[to]
	l.Ask, l.AskAt = "", 0
	l.Counter++
	delete(b.asked, l.Key)
	if give && !b.dead {
		s.gives++
		l.Owner, l.Acquisition = b.name, b.name+"#own"
		b.busy[l.Key] = true
		b.known[l.Key] = observation{lease: l, seenAt: s.now, movedAt: s.now}
		delete(w.busy, l.Key)
		w.known[l.Key] = corrected(l, s.now)
	} else {
		b.known[l.Key] = observation{lease: l, seenAt: s.now}.refused(s.failover, s.now)
		b.refused = true
	}
	s.table[l.Key] = l
}

// kill stops a worker as a crash does; release as an orderly stop does.
func (s *simulation) kill(w *simulated) { w.dead = true }

func (s *simulation) release(w *simulated) {
	w.dead = true
	for key, l := range s.table {
		if l.Owner == w.name {
			l.Owner, l.Ask = "", ""
			l.Counter++
			s.table[key] = l
		}
	}
}

// holdings are the leases of each live worker, those at the end of their shards left out.
func (s *simulation) holdings() map[string]int {
	h := map[string]int{}
	for _, w := range s.alive() {
		h[w.name] = 0
	}
	for _, k := range s.kcl {
		if !k.dead {
			h[k.name] = 0
		}
	}
	for _, l := range s.table {
		if _, ok := h[l.Owner]; ok && !l.Ended() {
			h[l.Owner]++
		}
	}
	return h
}

func (s *simulation) unowned() (n int) {
	for _, l := range s.table {
		if !l.Ended() && (l.Owner == "" || !s.isAlive(l.Owner)) {
			n++
		}
	}
	return n
}

// spread is the difference between the most and the fewest leases that a worker has.
func (s *simulation) spread() int {
	h := slices.Collect(maps.Values(s.holdings()))
	return slices.Max(h) - slices.Min(h)
}

func (s *simulation) moves() int { return s.takes + s.gives + s.steals }

// simulatedKCL is a KCL 2.x worker: its taker runs every two failover times, by the formula of its source.
type simulatedKCL struct {
	s        *simulation
	name     string
	dead     bool
	nextRun  time.Duration
	counters map[string]int64
	moved    map[string]time.Duration
	held     map[string]bool
	stolen   int // thefts by it
}

func (s *simulation) addKCL(n int) {
	for range n {
		s.kcl = append(s.kcl, &simulatedKCL{
			s: s, name: fmt.Sprintf("kcl%d", len(s.kcl)), nextRun: s.now + time.Duration(s.r.Int64N(int64(theftPeriod(s.failover)))),
			counters: map[string]int64{}, moved: map[string]time.Duration{}, held: map[string]bool{},
		})
	}
}

func (k *simulatedKCL) renew() {
	if k.dead {
		return
	}
	for key := range k.held {
		l := k.s.table[key]
		if l.Owner != k.name {
			delete(k.held, key)
			continue
		}
		l.Counter++
		k.s.table[key] = l
	}
}

func (k *simulatedKCL) run() {
	s := k.s
	if k.dead || s.now < k.nextRun {
		return
	}
	k.nextRun += theftPeriod(s.failover)
	var available, old []string
	counts := map[string]int{k.name: 0}
	for _, key := range slices.Sorted(maps.Keys(s.table)) {
		l := s.table[key]
		last, seen := k.counters[key]
		switch {
		case !seen && l.Owner == "":
			k.moved[key] = 0
		case !seen || last != l.Counter:
			k.moved[key] = s.now
		}
		k.counters[key] = l.Counter
		if l.Owner == "" || s.now-k.moved[key] > s.failover {
			available = append(available, key)
		} else {
			counts[l.Owner]++
		}
		if s.now-k.moved[key] > 3*s.failover && (l.Owner == "" || l.Owner != k.name) {
			old = append(old, key)
		}
	}
	target := 1
	if len(counts) < len(s.table) {
		target = (len(s.table) + len(counts) - 1) / len(counts)
	}
	if len(old) > 0 {
		for _, key := range old {
			k.take(key)
		}
		return
	}
	need := target - counts[k.name]
	if need <= 0 {
		return
	}
	s.r.Shuffle(len(available), func(i, j int) { available[i], available[j] = available[j], available[i] })
	if len(available) > 0 {
		for _, key := range available[:min(need, len(available))] {
			k.take(key)
		}
		return
	}
	richest := slices.MaxFunc(slices.Sorted(maps.Keys(counts)), func(a, b string) int { return cmp.Compare(counts[a], counts[b]) })
	over := 0
	if counts[richest] >= target {
		over = counts[richest] - target
	}
	n := min(need, over)
	if need > 1 && n == 0 && counts[richest] >= target {
		n = 1
	}
	if n = min(n, 1); n == 1 {
		var theirs []string
		for _, key := range slices.Sorted(maps.Keys(s.table)) {
			if s.table[key].Owner == richest {
				theirs = append(theirs, key)
			}
		}
		k.take(theirs[s.r.IntN(len(theirs))])
		k.stolen++
	}
}

func (k *simulatedKCL) take(key string) {
	l := k.s.table[key]
	if l.Owner == "" || !k.s.isAlive(l.Owner) {
		k.s.takes++
	} else {
		k.s.steals++
	}
	l.Owner = k.name
	l.Counter++
	k.s.table[key] = l
	k.counters[key], k.moved[key] = l.Counter, k.s.now
	k.held[key] = true
}
