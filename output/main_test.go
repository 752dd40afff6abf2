package output

import (
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

func TestMain(m *testing.M) { pulsartest.VerifyTestMain(stack.StopAfter(m)) }
