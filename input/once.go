package input

import (
	"sync"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// onceLog is a log with a memory: what is tried again and again, and fails in the same way each time, is told once.
type onceLog struct {
	*service.Logger

	mu struct {
		sync.Mutex
		told map[string]bool
	}
}

func newOnceLog(log *service.Logger) *onceLog {
	l := &onceLog{Logger: log}
	l.mu.told = map[string]bool{}
	return l
}

// WarnOnce warns, unless it has warned of the same thing before and Forget was not called since.
func (l *onceLog) WarnOnce(thing, format string, args ...any) {
	l.mu.Lock()
	told := l.mu.told[thing]
	l.mu.told[thing] = true
	l.mu.Unlock()
	if !told {
		l.Warnf(format, args...)
	}
}

// Forget lets the thing be told again.
func (l *onceLog) Forget(thing string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.mu.told, thing)
}
