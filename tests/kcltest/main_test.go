package kcltest_test

import (
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/leaktest"
)

func TestMain(m *testing.M) { leaktest.VerifyTestMain(m) }
