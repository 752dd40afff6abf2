package retrieval

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// The record of the position tells whether anything behind it may have been trimmed.
func TestTheFirstRecordsTellWhetherSomeWereTrimmed(t *testing.T) {
	for _, tc := range []struct {
		name    string
		after   string
		first   string
		trimmed bool
	}{
		{"from the beginning", "", "5", false},
		{"the record is there", "5", "5", false},
		{"the record is gone", "5", "9", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := converter{last: checkpoint.Position{Sequence: tc.after}}
			var none, read, next Read
			c.convert(&none, nil)
			c.convert(&read, []types.Record{{SequenceNumber: aws.String(tc.first)}})
			c.convert(&next, []types.Record{{SequenceNumber: aws.String("20")}})
			if none.Begins || !read.Begins || read.Trimmed != tc.trimmed || next.Begins || next.Trimmed {
				t.Errorf("%+v, %+v, %+v", none, read, next)
			}
		})
	}
}
