package stack

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// LeaseAddress returns an address (127.0.0.1:port) for a process that is about to be started, and which can't be told to choose
// one itself. Nobody else who asks here is given it before release is called; see leasePorts for who else can't come by it.
func LeaseAddress() (address string, release func(), err error) {
	lease, err := leasePorts(1)
	if err == nil {
		return fmt.Sprintf("127.0.0.1:%d", lease.ports[0]), lease.release, nil
	}
	// Where files can't be locked: a port from the kernel, which any process may be given in the moment before it is used.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("looking for a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), func() {}, nil
}

// FreeAddress is [LeaseAddress] until the test ends.
func FreeAddress(t testing.TB) string {
	t.Helper()
	address, release, err := LeaseAddress()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return address
}

// A portLease keeps ports from being given out twice: for the life of a service, its down times included.
type portLease struct {
	ports []int
	locks []*os.File
}

func (l *portLease) release() {
	for _, lock := range l.locks {
		lock.Close()
	}
}

// leasePorts takes n different TCP ports on which nothing listens at 127.0.0.1. No other process of this user gets
// them from here until they are released; a stranger still may, so a service that cannot bind is started again.
//
// They lie below the range from which the kernel takes ports for outgoing connections. A port that listening on
// port 0 gives lies in that range: while a broker is down for a restart, any client could be given its port, and
// a client that keeps dialing it could even connect to itself.
func leasePorts(n int) (*portLease, error) {
	root, err := cacheRoot()
	if err != nil {
		return nil, err
	}
	locks := filepath.Join(root, "ports")
	if err := os.MkdirAll(locks, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of port locks: %w", err)
	}
	low, high := 15000, ephemeralStart()
	if high-low < 1000 {
		low, high = 20000, 30000
	}
	lease := &portLease{}
	for range 1000 {
		port := low + rand.IntN(high-low)
		lock, err := tryLockFile(filepath.Join(locks, strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			lock.Close()
			continue
		}
		l.Close()
		lease.ports, lease.locks = append(lease.ports, port), append(lease.locks, lock)
		if len(lease.ports) == n {
			return lease, nil
		}
	}
	lease.release()
	return nil, fmt.Errorf("finding a free port between %d and %d at 127.0.0.1: all tries failed", low, high)
}

// ephemeralStart returns the first port for outgoing connections: from the kernel on Linux, 32768 elsewhere (the
// other systems begin higher).
func ephemeralStart() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			if port, err := strconv.Atoi(fields[0]); err == nil {
				return port
			}
		}
	}
	return 32768
}
