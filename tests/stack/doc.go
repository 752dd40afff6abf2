// Package stack runs the real services that tests and the demo need: Apache Pulsar standalone and AWS's
// DynamoDB Local. Both are fetched from Maven Central with the user's own Maven (no container engine is
// needed), kept in a cache, and run as child processes on loopback ports.
//
// # In a test
//
//	p := stack.SharedPulsar(t)     // one broker for the whole test binary; make topics of your own
//	d := stack.SharedDynamoDB(t)   // one server for the whole test binary; make tables of your own
//	p := stack.Pulsar(t)           // a private broker, for a test that stops or kills it
//	d := stack.DynamoDB(t)         // a private server
//
// Each skips the test when the service cannot run here (no Java, no Maven, no network for the first
// download, `go test -short`), and fails it instead when KINESIS_PULSAR_REQUIRE_SERVICES=1 is set, as in CI.
// [Unavailable] asks the same question without starting anything.
//
// A test binary that uses a shared instance ends it in its TestMain:
//
//	func TestMain(m *testing.M) { stack.Main(m) }                                 // or, with goleak:
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(stack.StopAfter(m)) }
//
// # Without testing
//
// [StartPulsar] and [StartDynamoDB] take a context and options and return errors; the demo uses them.
//
// # Invariants
//
//   - Only loopback addresses are bound.
//   - A child never outlives the process that started it: it is killed with its process group when it is
//     closed, and by the kernel (on Linux) when its parent dies without closing it.
//   - Only processes started here are ever signalled.
//   - Nothing is downloaded twice: a cache entry is named by a hash of what was asked for, is complete or
//     absent, and is made by one process at a time. KINESIS_PULSAR_CACHE moves the cache (default: the
//     folder kinesis-pulsar in the user's cache folder).
//   - Everything a service writes is below its scratch directory, which is removed with it; what a crashed
//     process has left there is removed by the next start.
//
// DynamoDB Local's licence allows its use but not shipping it: it is fetched, never committed.
package stack
