// Package failures is the table of what a real Pulsar broker does to a pipeline that runs: restarts and crashes, unloaded,
// terminated and deleted topics, both kinds of backlog quota, a withdrawn permission, a refused schema, limits on the size of
// messages, and TLS and tokens that are wrong, missing or out of date.
//
// Each case runs the built binary over a Kinesis and a DynamoDB stand-in of its own, and holds it to the same promises:
// records are put before, during and after the trouble, and in the end all of them are in the topic, the last copies of
// each key in order; the cause is seen while it lasts (in /ready if nothing can be written, by one WARN and the gauge
// pulsar_partition_blocked if some of it can't); and the pipeline goes on by itself when the cause is gone.
//
// One broker serves all cases; it has TLS, tokens and authorization.
package failures
