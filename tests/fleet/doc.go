// Package fleet proves that several workers, each a process of the built binary, share a stream: fairly, without losing a
// record, and with copies only where a process died.
//
// Every story runs over a stream of sixteen shards under a steady load of numbered records, does to the workers what
// happens to them in production (kill -9, a pause, more of them, fewer, a new version, a reshard), and ends with an account
// of three witnesses, none of which is the worker itself:
//
//   - the stream: what was put into it, and when;
//   - the topic: what arrived, in which order, from which worker;
//   - the ledger: every request of every worker to DynamoDB, and what became of it. It gives the tenures of a lease, one
//     after the other, and a message must have been published within a tenure of its worker.
//
// A record may have a second copy only if it lay behind the checkpoint from which a lease was taken from a dead owner.
//
// Kinesis and the Pulsar broker are stand-ins in the test's process; the lease table is DynamoDB Local where Java is
// present. With -fleet.full the stories are told at their full sizes, with Apache Pulsar. With -fleet.figures the package
// measures instead, and prints tables.
package fleet
