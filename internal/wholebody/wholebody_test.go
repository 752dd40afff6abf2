package wholebody

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// body is like the SDK's: it can write itself.
type body struct{ *bytes.Buffer }

func (body) Close() error { return nil }

type seen struct{ body io.ReadCloser }

func (s *seen) RoundTrip(req *http.Request) (*http.Response, error) {
	s.body = req.Body
	return &http.Response{}, nil
}

func TestTheBodyIsReadNotAskedToWriteItself(t *testing.T) {
	req, err := http.NewRequest(http.MethodPost, "http://localhost", body{bytes.NewBufferString("payload")})
	if err != nil {
		t.Fatal(err)
	}
	if _, can := req.Body.(io.WriterTo); !can {
		t.Fatal("the test's body must be one that can write itself")
	}
	var s seen
	if _, err := Transport(&s).RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if _, can := s.body.(io.WriterTo); can {
		t.Fatal("the body can still write itself")
	}
	if all, err := io.ReadAll(s.body); err != nil || string(all) != "payload" {
		t.Fatalf("%q, %v", all, err)
	}
	if _, can := req.Body.(io.WriterTo); !can {
		t.Fatal("the caller's request was changed")
	}
}
