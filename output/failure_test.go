package output

import (
	"errors"
	"fmt"
	"testing"

	"github.com/apache/pulsar-client-go/pulsar"
)

func TestFailureClasses(t *testing.T) {
	cut := errors.New("encryptedPayload exceeds MaxMessageSize, size: 5242990, MaxMessageSize: 5242880")
	for _, c := range []struct {
		err   error
		alone bool
		want  failureClass
	}{
		{nil, false, confirmed},
		{pulsar.ErrMessageTooLarge, false, permanent},
		{pulsar.ErrMetaTooLarge, false, permanent},
		{pulsar.ErrInvalidMessage, false, permanent},
		{errors.Join(pulsar.ErrSchema, errors.New("incompatible")), false, permanent},
		{fmt.Errorf("wrapped: %w", pulsar.ErrMessageTooLarge), false, permanent},
		{cut, true, permanent},
		// It was in a batch with others, which are as good as any.
		{cut, false, transient},
		{pulsar.ErrSendTimeout, true, transient},
		{pulsar.ErrProducerClosed, true, transient},
		{pulsar.ErrTopicTerminated, true, transient},
		{pulsar.ErrProducerFenced, true, transient},
		{pulsar.ErrProducerBlockedQuotaExceeded, true, transient},
		{pulsar.ErrFailAddToBatch, true, transient},
		{errNotStored, true, transient},
		{errPanicked, true, transient},
		{errors.New("anything else"), true, transient},
	} {
		if got := classify(c.err, c.alone); got != c.want {
			t.Errorf("%v (alone %v): class %d, want %d", c.err, c.alone, got, c.want)
		}
	}
}

func TestOnlyTheDuplicateReceiptIsNotStored(t *testing.T) {
	for id, want := range map[fakeID]bool{{-1, -1}: true, {0, 0}: false, {-1, 0}: false, {5, -1}: false} {
		if notStored(id) != want {
			t.Errorf("%v: %v", id, !want)
		}
	}
	if notStored(nil) {
		t.Error("no id")
	}
}
