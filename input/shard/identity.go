package shard

import (
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

// Identity is what tells one stream from all others, also from a later one of the same name.
type Identity struct {
	ARN     string
	Created time.Time
}

// Brand is the form that stands in the leases.
func (i Identity) Brand() string { return lease.StreamName(i.ARN, i.Created.Unix()) }
