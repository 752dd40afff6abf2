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
//   - A subscription brings the records after its position, each once and in order, as soon as they are put; its continuation
//     numbers can be resumed from at any event; its last event at the end of a closed shard names the children and has no such
//     number. A consumer has one subscription to a shard at a time.
//   - Every error is an exception that AWS documents for the call. Without a Fault no call fails that AWS would answer.
//
// Enhanced fan-out is spoken over HTTP/1.1, over HTTP/2 by prior knowledge (HTTP2Client), and with WithTLS over HTTP/2 as the SDK
// does it with AWS. A subscription that ends early does so in one of four ways, all of which a Fault can produce: an exception
// at the call, one inside the answer, a broken connection, and silence. A lost connection is mostly a clean end to
// the SDK, over HTTP/1.1 and HTTP/2 alike; for certain it reports only that a single HTTP/2 stream was reset.
//
// CreateReplay makes a stream for benchmarks, whose records are written anew into each answer: at 1 KiB the server spends
// under a microsecond of CPU on a record, sending it over the loopback included, where the SDK spends several on decoding it. A
// subscription costs about as much over HTTP/1.1; over HTTP/2 client and server together need a few times that, about half of
// it when the client asks for larger frames (MaxReadFrameSize).
//
// A client of its own should wrap its HTTP/1.1 transport with WholeBodies: against a server as near as this one the SDK
// otherwise loses a percent or two of its connections.
//
// The folder server has a program of it. The behaviours in the package's tests are looked for in two servers of others too,
// kinesis-local and kinesalite, where Node.js is there to run them.
//
// What differs from AWS: what is put can be read at once (see WithVisibilityDelay), streams are ACTIVE at once (see
// WithStateDelay), no limit on a rate holds but SubscribeToShard's (see WithReadLimits, WithWriteLimits,
// WithSubscriptionTimes), signatures are not checked, and an on-demand stream keeps its four shards.
package kinesistest
