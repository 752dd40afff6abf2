// Package metrics is the metrics exporter that Benthos itself lacks: prometheus, with the field names of Redpanda Connect's,
// so that a `metrics:` block written for that works here.
//
// Importing the package registers the exporter with Benthos.
//
// Invariants:
//   - A metric that cannot be exported (a name that Prometheus does not allow, or one with other labels than before) costs
//     one error in the log, never the pipeline.
//   - A gauge that is set to NaN is gone from the next scrape on. Benthos has no way to take a series back, and a lag that
//     nobody measures any more must not stay on the dashboards for ever; see [forget].
//   - I12: no URL with credentials in it is ever logged.
package metrics
