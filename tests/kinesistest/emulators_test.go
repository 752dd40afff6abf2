package kinesistest

import (
	"context"
	"crypto/sha256"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

//go:embed testdata/emulators
var emulatorFiles embed.FS

// emulators installs what the comparison runs against, with the user's own npm: into a folder of the cache that is named by a
// hash of what was asked for, and is complete or absent. The lock file holds npm to the very bytes.
func emulators(t *testing.T) (folder string) {
	t.Helper()
	unavailable := func(format string, args ...any) {
		t.Helper()
		if stack.Required() {
			t.Fatalf(format, args...)
		}
		t.Skipf(format, args...)
	}
	if !stack.Required() && testing.Short() {
		t.Skip("skipping the comparison with other emulators: -short")
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			unavailable("the comparison with other emulators needs %s in the PATH: install Node.js 20 or newer", program)
		}
	}
	root := os.Getenv("KINESIS_PULSAR_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			unavailable("no place for the emulators: set KINESIS_PULSAR_CACHE to a folder: %v", err)
		}
		root = filepath.Join(user, "kinesis-pulsar")
	}
	root, err := filepath.Abs(root)
	must(t, err)
	hash := sha256.New()
	files, err := fs.Sub(emulatorFiles, "testdata/emulators")
	must(t, err)
	must(t, fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(files, path)
		fmt.Fprintf(hash, "%s %d\n%s", path, len(text), text)
		return err
	}))
	folder = filepath.Join(root, "npm", fmt.Sprintf("%x", hash.Sum(nil)[:8]))
	if _, err := os.Stat(folder); err == nil {
		return folder
	}
	must(t, os.MkdirAll(filepath.Dir(folder), 0o755))
	made, err := os.MkdirTemp(filepath.Dir(folder), "making-")
	must(t, err)
	defer os.RemoveAll(made)
	work := filepath.Join(made, "emulators")
	must(t, os.CopyFS(work, files))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = work
	install.WaitDelay = time.Second
	if said, err := install.CombinedOutput(); err != nil {
		unavailable("installing the emulators: %v\n%s", err, said)
	}
	// Another process may have been quicker: its folder is as good.
	if err := os.Rename(work, folder); err != nil {
		if _, gone := os.Stat(folder); gone != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// freePort is one that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// startEmulator runs a program of node until the end of the test, and waits until it answers.
func startEmulator(t *testing.T, folder, module, program, port string, env []string, args ...string) *kinesis.Client {
	t.Helper()
	cmd := exec.Command("node", append([]string{"-r", filepath.Join(folder, "loopback.js"), program}, args...)...)
	cmd.Dir = filepath.Join(folder, "node_modules", module)
	cmd.Env = append(os.Environ(), env...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	transport := newTransport(false)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stdin.Close()
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
			cmd.Process.Kill()
			<-exited
		}
		if t.Failed() {
			text := log.String()
			t.Logf("%s said: …%s", module, text[max(0, len(text)-2000):])
		}
	})
	c := kinesis.New(kinesis.Options{
		BaseEndpoint: aws.String("http://127.0.0.1:" + port),
		Region:       "us-east-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "000000000000", SecretAccessKey: "secret"}, nil
		}),
		HTTPClient: &http.Client{Transport: WholeBodies(initialResponses{transport})},
		Retryer:    aws.NopRetryer{},
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := c.ListStreams(t.Context(), nil)
		if err == nil {
			return c
		}
		select {
		case early := <-exited:
			exited <- early
			t.Fatalf("%s has ended: %v\n%s", module, early, log.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v", module, err)
		}
	}
}

// initialResponses adds to the answers of subscriptions the frame that comes first, which AWS sends, the SDK demands, and
// kinesis-local leaves out.
type initialResponses struct{ next http.RoundTripper }

func (t initialResponses) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(r)
	if err == nil && response.StatusCode == http.StatusOK && strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".SubscribeToShard") {
		body := response.Body
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(strings.NewReader(string(initialResponse)), body), body}
	}
	return response, err
}
