// Package kcltest simulates workers of Amazon's Kinesis Client Library (KCL) on a lease table: what a fleet of Java applications does
// to the table while our workers share it, had it before, or get it back.
//
// A [Worker] of generation [KCL2] renews, takes by fair share, steals, checkpoints, ends shards, cleans up, elects the leader by
// shuffling and syncs shards as KCL 2.x does, mistakes included: an item without a counter ends all its scans, a checkpoint whose
// answer was lost costs the lease, the first checkpoint is read by a stale read, a zombie delivers until it notices. One of
// generation [KCL3] is the single-table KCL 3.5: rows of workers and of the leader in the lease table, assignment by the leader
// through graceful hand-over, discovery.
//
// It sends the same conditional writes, with the parameters from before expressions that KCL uses, and leaves the same items; the
// tests hold both against items that the real ones wrote. Its clock is passed in, its pauses are those of package time: under
// testing/synctest a day of a fleet takes a moment. Reading Kinesis is the business of the [Consumer].
//
// Not there: several streams on one table, the two-phase checkpoint, balancing by throughput (hand-overs go by lease counts, as KCL
// 3.4.3 can be told to), migration between generations, metrics.
package kcltest
