package lease

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrOtherStream is returned when leases of another stream are in the table.
	ErrOtherStream = errors.New("the lease table belongs to another stream")
	// ErrRecreatedStream is returned when the stream was deleted and created again since the leases were written: their
	// checkpoints mean nothing in it.
	ErrRecreatedStream = errors.New("the stream was deleted and created again since these leases were written")
)

// StreamName is the form in which a lease names its stream: ARN and creation time, since a stream that is created again
// keeps its ARN.
func StreamName(arn string, creationEpochSeconds int64) string {
	return fmt.Sprintf("%s@%d", arn, creationEpochSeconds)
}

// CheckStream refuses leases that belong to another stream than the one named (r7.1); the error names both. Leases that
// say nothing, as KCL's, pass.
func CheckStream(leases []Lease, stream string) error {
	for _, l := range leases {
		if l.Stream == "" || l.Stream == stream {
			continue
		}
		theirs, _, _ := strings.Cut(l.Stream, "@")
		ours, _, _ := strings.Cut(stream, "@")
		kind := ErrOtherStream
		if theirs == ours {
			kind = ErrRecreatedStream
		}
		return fmt.Errorf("lease %s is of stream %s, this worker reads %s: %w", l.Key, l.Stream, stream, kind)
	}
	return nil
}
