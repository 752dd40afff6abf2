package lease

import (
	"maps"
	"slices"
)

// Ask makes a manager ask for other workers' leases, and grant asks for its own, whenever it is told to, on top of what its plan
// says: the protocol has to hold whatever the plan is. It must be called before Run.
func (m *Manager) Ask(wants, grants func(key string) bool) {
	m.plan = func(known map[string]observation, v view) decisions {
		d := makePlan(known, v)
		if d.foreign != nil || v.beside != BesideNone {
			return d
		}
		planned := map[string]bool{}
		for _, l := range slices.Concat(d.take, d.ask, d.release) {
			planned[l.Key] = true
		}
		for _, key := range slices.Sorted(maps.Keys(known)) {
			l := known[key].lease
			_, asked := v.asked[key]
			if l.IsOurs() && l.Owner != v.worker && !l.Ended() && !v.busy[key] && !asked && !planned[key] && wants(key) {
				d.ask = append(d.ask, l)
			}
		}
		return d
	}
	m.judge = func(_ map[string]observation, _ view, asked []Lease) (grant, refuse []Lease) {
		for _, l := range asked {
			if grants(l.Key) {
				grant = append(grant, l)
			} else {
				refuse = append(refuse, l)
			}
		}
		return grant, refuse
	}
}
