package dynamotest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(stack.StopAfter(m)) }
