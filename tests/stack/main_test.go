package stack

import (
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

func TestMain(m *testing.M) { pulsartest.VerifyTestMain(StopAfter(m)) }
