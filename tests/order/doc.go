// Package order proves what the pipeline promises about order, at sizes at which luck does not help: the real input and the
// real output, with all that Benthos has to reorder batches in between (16 threads, 64 slots, processors that delay, filter
// and fail, every stock output broker), a broker that fails while it stores, and an account of every record as a reader of
// the topic would see it.
//
//	go test ./tests/order                                       # a fiftieth of the records
//	go test ./tests/order -order.full -timeout 1h               # a million directly, 100,000 behind each broker
//	go test ./tests/order -order.full -run 'TestOrder/retry$'   # one story of it
//
// What is checked:
//   - Nothing is lost: every record that no processor dropped is in the topic, or was taken by another output that the
//     configuration names.
//   - Per key the last copies lie in the order of the stream.
//   - Where nothing fails there is one copy of each, so that the first copies are in order, too.
//   - It ends: nothing may stand still for three minutes, and the checkpoints reach the last record.
package order
