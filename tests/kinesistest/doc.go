// Package kinesistest is an Amazon Kinesis Data Streams service for tests: it speaks the service's JSON 1.1 over HTTP on the
// loopback, so that what is tested uses the real AWS SDK, keeps its records in memory, and lets a test set the clock, enforce
// the shards' limits, and make any call fail in any way.
//
//	s := kinesistest.NewServer()
//	defer s.Close()
//	s.CreateStream("orders", 4)
//	s.Put("orders", "customer-17", []byte("hello"))
//	client := s.Client() // or an own one, with s.URL() as its endpoint
//
// What it promises:
//   - The records of a shard come in the order they were put, exactly as they were put, with strictly increasing sequence
//     numbers, until they are older than the retention period by the server's clock.
//   - At any time the open shards of a stream tile the key space 0 … 2^128−1; a closed shard ends with its children named.
//   - A shard iterator works for five minutes of the server's clock and only on the server and the stream that gave it.
//   - Every error is an exception that AWS documents for the call. Without a Fault no call fails that AWS would answer.
//
// CreateReplay makes a stream for benchmarks, whose records are written anew into each answer: at 1 KiB the server spends
// under a microsecond of CPU on a record, sending it over the loopback included, where the SDK spends several on decoding it.
//
// A client of its own should wrap its HTTP/1.1 transport with WholeBodies: against a server as near as this one the SDK
// otherwise loses a percent or two of its connections.
//
// What differs from AWS: what is put can be read at once (see WithVisibilityDelay), streams are ACTIVE at once (see
// WithStateDelay), no limit on a rate holds (see WithReadLimits, WithWriteLimits), signatures are not checked, and
// an on-demand stream keeps its four shards.
package kinesistest
