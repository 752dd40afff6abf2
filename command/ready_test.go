package command_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReadyTellsTheCause(t *testing.T) {
	status, body := http.StatusOK, "OK"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer server.Close()
	if code, out, complaints := run(t, "ready", "--url", server.URL); code != 0 || out != "ready\n" {
		t.Errorf("exit code %d: %s %s", code, out, complaints)
	}
	status, body = http.StatusServiceUnavailable, "input: no such stream\noutput: fine"
	if code, _, complaints := run(t, "ready", "--url", server.URL); code != 1 || complaints != "not ready: input: no such stream output: fine" {
		t.Errorf("exit code %d: %q", code, complaints)
	}
	for _, args := range [][]string{{"--url", "http://127.0.0.1:1/ready"}, {"--url", "::"}, {"--timeout", "0s", "--url", server.URL}} {
		if code, _, complaints := run(t, append([]string{"ready"}, args...)...); code != 1 || !strings.HasPrefix(complaints, "not ready: ") {
			t.Errorf("%v: exit code %d: %q", args, code, complaints)
		}
	}
}
