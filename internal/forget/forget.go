// Package forget takes gauges back. Benthos' metrics have no way to do so: a gauge that is not set any more keeps its last
// value, and the lag of a stream that was deleted an hour ago looks like trouble.
package forget

import (
	"math"
	"sync/atomic"
)

var understood atomic.Bool

// Understood tells the process that its exporter drops a gauge which is set to NaN. The exporter says so when it is made.
func Understood() { understood.Store(true) }

// Gauge is the part of a gauge that is needed here; *service.MetricGauge is one.
type Gauge interface {
	Set(value int64, labelValues ...string)
	SetFloat64(value float64, labelValues ...string)
}

// Series takes one series of a gauge back. Where the exporter knows no such thing, the series goes to 0: other exporters
// make an integer of a NaN, and a very odd one.
func Series(g Gauge, labelValues ...string) {
	if understood.Load() {
		g.SetFloat64(math.NaN(), labelValues...)
		return
	}
	g.Set(0, labelValues...)
}
