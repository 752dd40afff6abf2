package input

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

// newWorkerID returns an id that no other worker ever has: two live workers with the same id would take each other's
// leases for their own. Host and process are in it for whoever reads the lease table; at most 48 bytes, so that a lease
// item stays below one write unit. "#" separates the id from a nonce in the table, so it must not be part of it.
func newWorkerID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "worker"
	}
	host = strings.ReplaceAll(host, "#", "-")
	random := rand.Text()[:12]
	tail := fmt.Sprintf("-%d-%s", os.Getpid(), random)
	return host[:min(len(host), 48-len(tail))] + tail
}

// errTableTaken is returned when one process is to read two streams with one lease table.
var errTableTaken = errors.New("another input of this process uses the same lease table for another stream")

// tables knows which stream each lease table is used for in this process, and by how many inputs. Two inputs with one
// table and one stream are two workers that share; two streams would read each other's positions.
var tables = tableRegistry{}

type tableRegistry struct {
	mu    sync.Mutex
	users map[string]*tableUse // guarded by mu
}

type tableUse struct {
	stream shard.Identity
	count  int
}

// enter registers one input's use; leave it by the returned function, once.
func (r *tableRegistry) enter(table string, stream shard.Identity) (leave func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	use := r.users[table]
	if use == nil {
		if r.users == nil {
			r.users = map[string]*tableUse{}
		}
		use = &tableUse{stream: stream}
		r.users[table] = use
	}
	if use.stream.Brand() != stream.Brand() {
		return nil, fmt.Errorf("applicationName: %w: %s uses it; give each stream an applicationName of its own", errTableTaken, use.stream.ARN)
	}
	use.count++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if use.count--; use.count == 0 {
			delete(r.users, table)
		}
	}, nil
}
