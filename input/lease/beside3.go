package lease

import (
	"context"
	"fmt"
	"time"
)

// versionPeriod is how often KCL's stored client version is read while KCL has leases: as often as its own workers do.
const versionPeriod = time.Minute

// isKCLDue tells whether the tables of KCL 3.x's own should be looked at with the next scan. Among our own leases only
// the lease table is looked at, which costs nothing: a 3.x worker that comes there shows by the leases that it gets.
func (m *Manager) isKCLDue(now time.Duration) bool {
	return m.witness.owners() && !m.kcl3.unreadable && (m.kcl3At == 0 || now-m.kcl3At >= versionPeriod)
}

// readKCL reads what KCL 3.0 to 3.4 keep outside of the lease table, nil if that fails.
func (m *Manager) readKCL(ctx context.Context) *coordinator {
	c, err := m.cfg.Table.coordinator(ctx, false)
	if err != nil {
		m.cfg.Log.Debugf("Looking for KCL 3.x: %v", err)
		return nil
	}
	return &c
}

// lookBeside looks in a scan for a live worker of KCL 3.x (r8.4).
func (m *Manager) lookBeside(s *scanResult) {
	if s.kcl3 != nil {
		if s.kcl3.unreadable && !m.kcl3.unreadable {
			m.cfg.Log.Warnf("Not permitted to read the state of KCL 3.x beside lease table %s (dynamodb:GetItem on %s); whether a KCL worker there is a 3.x one is judged by its leases",
				m.cfg.Table.Name(), m.cfg.Table.application+coordinatorSuffix)
		}
		m.kcl3 = *s.kcl3
	}
	m.witness.see(s.snapshot.Leases, m.kcl3.with(s.snapshot.Foreign), s.at)
	if worker, what := m.witness.alive(s.at); what != "" {
		m.sawBeside(worker, fmt.Sprintf("its worker %s has moved %s", worker, what))
	}
}
