package kinesistest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	targetPrefix = "Kinesis_20131202."
	contentType  = "application/x-amz-json-1.1"
	// maxRequest is above what AWS takes (10 MiB of data, as base64), so that too large a request gets the exception for it.
	maxRequest = 64 << 20
)

// operation is one API operation. Decoding runs without the lock, do takes it.
type operation interface {
	decode(body []byte) (request, error)
}

// request is a decoded request.
type request interface {
	// about is the stream and the shard that the call concerns, as far as the request tells.
	about(s *Server) (stream, shard string)
	// do answers: with something to be encoded as JSON, an *encoded that is JSON already, nil for an empty body, or a
	// *subscription that pushes its answer.
	do(s *Server, now time.Time) (any, *apiError)
}

// encoded is a body that needs no encoding. It comes from buffers, and goes back there when it is sent.
type encoded []byte

type decoder[T any, P interface {
	*T
	request
}] struct{}

func (decoder[T, P]) decode(body []byte) (request, error) {
	in := P(new(T))
	if err := json.Unmarshal(body, in); err != nil {
		return nil, err
	}
	return in, nil
}

// ServeHTTP answers one API call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.calls.RLock()
	defer s.calls.RUnlock()
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return // The client is gone, or sends without end.
	}
	name := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
	op, known := operations[name]
	if r.Method != http.MethodPost || !known {
		s.meet(Call{Operation: name})
		s.answer(w, r, nil, nil, errorf(UnknownOperation, ""))
		return
	}
	req, err := op.decode(body)
	if err != nil {
		s.meet(Call{Operation: name})
		s.answer(w, r, nil, nil, errorf("SerializationException", "%v", err))
		return
	}
	call := Call{Operation: name}
	call.Stream, call.Shard = req.about(s)
	in := s.meet(call)
	if in != nil {
		switch in.fault.Kind {
		case Fail:
			s.answer(w, r, in, nil, in.fault.exception())
			return
		case Slow:
			pause(r, in, in.fault.Delay)
		case Hang:
			select {
			case <-in.gone:
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
	}
	out, failure := req.do(s, s.now())
	if sub, ok := out.(*subscription); ok {
		s.push(w, r, in, sub)
		return
	}
	s.answer(w, r, in, out, failure)
}

func (f *Fault) exception() *apiError {
	code := f.Code
	if code == "" {
		code = ProvisionedThroughputExceeded
	}
	message := f.Message
	if message == "" {
		message = "injected by a test"
	}
	e := errorf(code, "%s", message)
	if f.Status != 0 {
		e.status = f.Status
	}
	return e
}

// pause waits for real time, or until the fault is removed. When the client or the server is gone it ends the call the
// way net/http wants it: a handler that merely returns would answer 200.
func pause(r *http.Request, in *Injected, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-in.gone:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, in *Injected, out any, failure *apiError) {
	status := http.StatusOK
	var body []byte
	switch {
	case failure != nil:
		// AWS names the exception in the body alone; the SDK looks for a header too.
		status = failure.status
		body = encode(map[string]string{"__type": failure.code, "message": failure.message})
	case out == nil:
	default:
		if done, ok := out.(*encoded); ok {
			body = *done
			defer buffers.Put(done)
		} else {
			body = encode(out)
		}
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Date", s.now().UTC().Format(http.TimeFormat))
	h.Set("X-Amzn-Requestid", requestID())
	h.Set("Content-Length", strconv.Itoa(len(body)))
	switch {
	case in != nil && in.fault.Kind == Cut:
		if in.fault.Bytes > 0 {
			w.WriteHeader(status)
			w.Write(body[:min(in.fault.Bytes, len(body))])
			http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler) // net/http's way to close the connection
	case in != nil && in.fault.Kind == Trickle:
		w.WriteHeader(status)
		for size := max(in.fault.Bytes, 1); len(body) > 0; {
			n := min(size, len(body))
			if _, err := w.Write(body[:n]); err != nil {
				return
			}
			http.NewResponseController(w).Flush()
			body = body[n:]
			pause(r, in, in.fault.Delay)
		}
	default:
		w.WriteHeader(status)
		w.Write(body)
	}
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("kinesistest: encoding an answer: %v", err)) // a type of ours that JSON can't write
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// requestID is a random UUID, which is what AWS sends.
func requestID() string {
	var b [16]byte
	rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// timestamp travels as seconds since 1970, with milliseconds behind the point.
type timestamp struct{ time.Time }

func (t timestamp) MarshalJSON() ([]byte, error) { return appendTimestamp(nil, t.Time), nil }

func appendTimestamp(b []byte, t time.Time) []byte {
	milli := t.UnixMilli()
	b = strconv.AppendInt(b, milli/1000, 10)
	if rest := milli % 1000; rest != 0 {
		b = append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
	}
	return b
}

func (t *timestamp) UnmarshalJSON(b []byte) error {
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.Abs(seconds) > 1e11 {
		return errors.New("a timestamp must be a number of seconds since 1970")
	}
	t.Time = time.UnixMilli(int64(math.Round(seconds * 1000)))
	return nil
}

// appendRecord writes a record as GetRecords and events of a subscription carry it.
func appendRecord(b []byte, r *Record) []byte {
	b = append(b, `{"SequenceNumber":"`...)
	b = append(b, r.SequenceNumber...)
	b = append(b, `","ApproximateArrivalTimestamp":`...)
	b = appendTimestamp(b, r.Arrival)
	b = append(b, `,"Data":"`...)
	b = base64.StdEncoding.AppendEncode(b, r.Data)
	b = append(b, `","PartitionKey":`...)
	b = append(b, encode(r.PartitionKey)...)
	if r.EncryptionType != "" {
		b = append(b, `,"EncryptionType":"`...)
		b = append(b, r.EncryptionType...)
		b = append(b, '"')
	}
	return append(b, '}')
}
