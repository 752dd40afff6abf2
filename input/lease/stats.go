package lease

import (
	"errors"
	"fmt"
	"time"
)

// Stats tell how a manager stands and what it has done since Run began.
type Stats struct {
	// Held leases are kept by this worker; Draining of them are on their way to other workers.
	Held, Draining int
	// Asked leases are on their way to this worker, or refused yet.
	Asked int
	// Workers seem to be alive, this one included.
	Workers int
	// Leftover leases have no owner, since this worker may not hold more (MaxLeases) and nobody else has come for them.
	Leftover int
	// Beside names the worker of KCL 3.x that works on the table; "" = none is known. While there is one no lease is
	// taken or asked for.
	Beside string

	// Runs that began: of leases taken, and of leases that were given to us.
	Taken, Received int64
	// Runs that ended: given to another worker, released, lost to somebody, not renewed in time.
	Given, Released, Lost, Fenced int64
}

// ended counts the end of a run.
func (s *Stats) ended(cause error) {
	switch {
	case errors.Is(cause, ErrGiven):
		s.Given++
	case errors.Is(cause, ErrReleased):
		s.Released++
	case errors.Is(cause, ErrLost):
		s.Lost++
	case errors.Is(cause, ErrFenced):
		s.Fenced++
	}
}

// Stats returns how the manager stands.
func (m *Manager) Stats() Stats {
	now := m.cfg.Clock()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.mu.stats
	if m.isBesideLocked(now) {
		s.Beside = m.mu.beside
	}
	return s
}

func (m *Manager) count(change func(*Stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.mu.stats)
}

// publish tells the outside of a plan.
func (m *Manager) publish(d decisions) {
	m.kcl2.Store(d.kcl2)
	m.count(func(s *Stats) {
		s.Held, s.Draining, s.Asked = len(m.busy)-m.starting, len(m.giving), len(m.asking)
		s.Workers, s.Leftover = d.workers, d.leftover
	})
}

// besideMemory is how long a hand-over that KCL 3.x has begun tells that it works here. Its leader balances at most once
// a minute, and only when there is something to balance.
const besideMemory = 5 * time.Minute

// noteBeside notes that KCL 3.x wants to give a lease of ours to the worker.
func (m *Manager) noteBeside(worker string) {
	m.sawBeside(worker, fmt.Sprintf("it wants its worker %s to have a lease of ours", worker))
}

// sawBeside notes a sign of life of a worker of KCL 3.x, and warns of the first one.
func (m *Manager) sawBeside(worker, sign string) {
	now := m.cfg.Clock()
	m.mu.Lock()
	told := m.isBesideLocked(now)
	m.mu.beside, m.mu.besideAt = worker, now
	m.mu.Unlock()
	if !told {
		m.cfg.Log.Warnf("KCL 3.x works on lease table %s too: %s. It gets what it wants; this worker keeps the other leases, and takes no more", m.cfg.Table.Name(), sign)
	}
}

// beside tells the planner whether KCL 3.x works here.
func (m *Manager) beside(now time.Duration) Beside {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isBesideLocked(now) {
		return Beside3
	}
	return BesideNone
}

// isBesideLocked must be called with mu held.
func (m *Manager) isBesideLocked(now time.Duration) bool {
	return m.mu.beside != "" && now-m.mu.besideAt < besideMemory
}
