package dynamotest_test

import (
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/leaktest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

func TestMain(m *testing.M) { leaktest.VerifyTestMain(stack.StopAfter(m)) }
