// Package lease is the client of a KCL-compatible lease table in DynamoDB, and the keeping and taking of leases in it.
//
// Every shard has one item in the table. Whoever stands in its leaseOwner may read the shard, as long as it moves
// leaseCounter in time; who sees the counter unchanged for the failover time may put itself there. The items are those
// of the Kinesis Client Library, whose workers may share the table; what only this project needs stands in attributes
// with the prefix kp_, which KCL keeps and does not read.
//
// Table does single reads and conditional writes. Manager scans, takes what is free or expired, asks other workers of
// ours for what would be its share (ask.go), and runs one actor per lease (Held) which alone sends the owner's writes of
// it: renewals, and at the end a release, or the hand-over to a worker that asks (give.go). What an answer means, what
// has expired, what to take and whom to give are pure functions (outcome.go, observe.go, plan.go with fair.go, rebalance.go
// and beside.go), and so is whom of KCL 3.x one has seen alive (witness.go; Table.Watch asks that before the first write).
//
// Invariants:
//   - Every update fails on a missing item, so that a write arriving late after a deletion cannot bring a broken one
//     to life, which would end every scan of a KCL 2.x fleet.
//   - leaseCounter only grows, and only by writes of the owner or of the one who becomes it.
//   - checkpointOwner is never set by us.
//   - A lease is given only when its run is drained, so that whoever gets it begins behind everything that was handed on,
//     or over. A drained run resumes only when no hand-over of it can arrive any more.
//   - One run of a lease is one acquisition (kp_acq) with one fence. The fence closes a margin before the first moment
//     at which another worker may take the lease; nothing opens it again.
//   - I1: a stored checkpoint is replaced by a greater one only, and by a sentinel only if that is SHARD_END.
//   - I9: renewals share no goroutine, no lock held across I/O and no queue with delivery.
package lease
