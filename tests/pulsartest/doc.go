// Package pulsartest is an Apache Pulsar broker for producers and readers, in process and on the wire: it listens on a
// loopback port, speaks Pulsar's binary protocol, and any real client can produce to it, and read with what keeps its own
// place. What was stored is also read through the Go API; there are no consumers. It is to Pulsar what kfake is to Kafka.
//
//	broker := pulsartest.NewBroker()
//	defer broker.Close()
//	broker.CreatePartitionedTopic("orders", 4)
//	… a client connects to broker.URL() and sends …
//	for _, m := range broker.Messages("orders") { … }
//
// Faults are set by topic and count (see Broker.FailSends and the functions beside it), and strike SENDs in the order in
// which they were set. A topic may be written "t", "public/default/t" or "persistent://public/default/t"; naming a
// partitioned topic means all its partitions, and "" means every topic.
//
// Invariants:
//   - The messages of a producer are stored in the order of its SENDs; a SEND is stored whole or not at all.
//   - Receipts of a producer leave in the order of its SENDs, after the message is stored.
//   - A reader gets every entry from its place on, in order, once for each time that it subscribes.
//   - Nothing is stored for a producer once it was closed or its connection dropped.
//   - What was stored outlives Stop and Restart.
//   - After Close no goroutine of the broker is left.
//
// Where it differs from the real broker on purpose: one access mode (Shared), no transactions, no schema checks, no
// quotas (RefuseProducers says what a quota says), and every topic is stored for ever.
package pulsartest
