package kinesistest

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream/eventstreamapi"
)

const (
	eventStreamType = "application/vnd.amazon.eventstream"
	frameOverhead   = 16 // its two lengths and two checksums
	preludeSize     = 12 // the lengths and the checksum over them
)

func eventHeaders(kind string) eventstream.Headers {
	var h eventstream.Headers
	h.Set(eventstreamapi.MessageTypeHeader, eventstream.StringValue(eventstreamapi.EventMessageType))
	h.Set(eventstreamapi.EventTypeHeader, eventstream.StringValue(kind))
	h.Set(eventstreamapi.ContentTypeHeader, eventstream.StringValue("application/json"))
	return h
}

var (
	initialResponse = encodeFrame(eventHeaders("initial-response"), []byte("{}"))
	// eventPrefix is how the frame of every event starts, its lengths left out: 12 bytes for the prelude, then the headers.
	eventPrefix = func() []byte {
		var b bytes.Buffer
		b.Write(make([]byte, preludeSize))
		if err := eventstream.EncodeHeaders(&b, eventHeaders("SubscribeToShardEvent")); err != nil {
			panic(err)
		}
		return b.Bytes()
	}()
)

func encodeFrame(headers eventstream.Headers, payload []byte) []byte {
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, eventstream.Message{Headers: headers, Payload: payload}); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// inStream is the name that an exception has inside a subscription, where it differs from that at a call.
func inStream(code string) string {
	if code == InternalFailure {
		return "InternalFailureException"
	}
	return code
}

// subscriptionExceptions are those that the API declares for a subscription's events.
var subscriptionExceptions = []string{
	inStream(InternalFailure), KMSAccessDenied, KMSDisabled, KMSInvalidState, KMSNotFound, KMSOptInRequired, KMSThrottling,
	ResourceInUse, ResourceNotFound,
}

// exceptionFrame is how an exception looks inside a subscription. One that the API does not declare there comes as the
// protocol's unmodelled error.
func exceptionFrame(e *apiError) []byte {
	code := inStream(e.code)
	var h eventstream.Headers
	if !slices.Contains(subscriptionExceptions, code) {
		h.Set(eventstreamapi.MessageTypeHeader, eventstream.StringValue(eventstreamapi.ErrorMessageType))
		h.Set(eventstreamapi.ErrorCodeHeader, eventstream.StringValue(code))
		h.Set(eventstreamapi.ErrorMessageHeader, eventstream.StringValue(e.message))
		return encodeFrame(h, nil)
	}
	h.Set(eventstreamapi.MessageTypeHeader, eventstream.StringValue(eventstreamapi.ExceptionMessageType))
	h.Set(eventstreamapi.ExceptionTypeHeader, eventstream.StringValue(code))
	h.Set(eventstreamapi.ContentTypeHeader, eventstream.StringValue("application/json"))
	return encodeFrame(h, encode(map[string]string{"message": e.message}))
}

// encodeEvent writes an event's frame into a buffer of the pool. It frames in place: the SDK's encoder would copy the payload,
// which may be a megabyte, twice.
func encodeEvent(ev *event) *encoded {
	out := buffers.Get().(*encoded)
	b := append(slices.Grow((*out)[:0], len(eventPrefix)+256+ev.jsonSize()), eventPrefix...)
	b = ev.appendRecords(append(b, `{"Records":`...))
	b = append(b, `,"MillisBehindLatest":`...)
	b = strconv.AppendInt(b, ev.behind.Milliseconds(), 10)
	if ev.continuation != "" {
		b = append(b, `,"ContinuationSequenceNumber":"`...)
		b = append(b, ev.continuation...)
		b = append(b, '"', '}')
	} else {
		b = append(b, `,"ChildShards":`...)
		b = append(b, encode(ev.children)...)
		b = append(b, '}')
	}
	*out = sealFrame(b, len(eventPrefix)-preludeSize)
	return out
}

// sealFrame fills in the prelude of a frame and adds its checksum.
func sealFrame(b []byte, headers int) []byte {
	binary.BigEndian.PutUint32(b[0:], uint32(len(b)+4))
	binary.BigEndian.PutUint32(b[4:], uint32(headers))
	binary.BigEndian.PutUint32(b[8:], crc32.ChecksumIEEE(b[:8]))
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// eventWriter sends a subscription's frames, and does what a fault wants done to them.
type eventWriter struct {
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	in      *Injected // nil, or the fault that hits this call
	events  int       // sent; −1 before the initial response
	due     bool      // the fault's moment has come, but for left bytes
	left    int

	connection *mutableConn // may be nil
	written    int64        // what it has written when all that was sent is
}

// start sends the header.
func (e *eventWriter) start() error {
	if e.connection = connectionOf(e.r); e.connection != nil {
		e.written = e.connection.written.Load()
	}
	if e.in != nil && e.in.fault.Kind == Cut && e.in.fault.Events < 0 && e.in.fault.Bytes == 0 {
		e.cut() // before the header, as with any other call
	}
	e.w.WriteHeader(http.StatusOK)
	if err := e.control.Flush(); err != nil {
		return err
	}
	return e.reach()
}

// reach is called after the header and after each frame: it tells whether the fault's moment has come.
func (e *eventWriter) reach() error {
	if e.in == nil {
		return nil
	}
	f := &e.in.fault
	if !e.due && e.events >= f.Events {
		e.due, e.left = true, f.Bytes
	}
	if !e.due {
		return nil
	}
	switch f.Kind {
	case FailLater:
		e.send(exceptionFrame(f.exception()))
		return errClean
	case Cut, Stall, End:
		if e.left <= 0 {
			return e.happen()
		}
	}
	return nil
}

func (e *eventWriter) happen() error {
	switch e.in.fault.Kind {
	case End:
		return errClean
	case Stall:
		if e.in.fault.Connection && e.connection != nil {
			e.connection.settle(e.written)
			e.connection.muted.Store(true)
		}
		select {
		case <-e.in.gone:
		case <-e.r.Context().Done():
		}
	}
	e.cut()
	return nil
}

func (e *eventWriter) cut() {
	if e.in.fault.Connection && e.connection != nil {
		e.connection.settle(e.written)
		e.connection.Close()
	}
	panic(http.ErrAbortHandler)
}

func (e *eventWriter) write(frame []byte) error {
	if e.due {
		switch f := &e.in.fault; f.Kind {
		case Trickle:
			for size := max(f.Bytes, 1); len(frame) > 0; {
				n := min(size, len(frame))
				if err := e.send(frame[:n]); err != nil {
					return err
				}
				frame = frame[n:]
				pause(e.r, e.in, f.Delay)
			}
		case Cut, Stall, End:
			if len(frame) > e.left {
				if err := e.send(frame[:e.left]); err != nil {
					return err
				}
				return e.happen()
			}
			e.left -= len(frame)
		}
	}
	if err := e.send(frame); err != nil {
		return err
	}
	e.events++
	return e.reach()
}

func (e *eventWriter) send(b []byte) error {
	e.written += int64(len(b))
	if len(b) > 0 {
		if _, err := e.w.Write(b); err != nil {
			return err
		}
	}
	return e.control.Flush()
}

// finish sends the exception with which a subscription ends, if it has one.
func (e *eventWriter) finish(sub *subscription) {
	if why, ok := context.Cause(sub.ctx).(*apiError); ok {
		e.send(exceptionFrame(why))
	}
}
