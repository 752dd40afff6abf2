package leases

import "time"

// Movement remembers, over several looks, when each counter was last seen to move: a young timestamp or an owner's name is no
// proof that the owner lives, a counter that moves is.
type Movement struct {
	seen map[string]seen
}

type seen struct {
	counter int64
	at      time.Time // the zero time: not seen to move yet
}

// Note takes a new look, and puts into its rows what is known by now.
func (m *Movement) Note(v *View) {
	next := make(map[string]seen, len(v.Rows))
	for i := range v.Rows {
		r := &v.Rows[i]
		now := seen{counter: r.Counter}
		if before, has := m.seen[r.Shard]; has {
			now.at = before.at
			if before.counter != r.Counter {
				now.at = v.At
			}
		}
		if !now.at.IsZero() {
			at := now.at
			r.Moved = &at
		}
		next[r.Shard] = now
	}
	m.seen = next
}
