package stack

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// PulsarOptions say how Pulsar is run. The zero value is right for most.
type PulsarOptions struct {
	// Conf adds to the broker's configuration, or replaces what is set in it, by the names of Pulsar's
	// standalone.conf.
	Conf map[string]string

	// Secure turns on TLS (beside the plain ports), token authentication and authorization.
	Secure bool

	// Progress, when not nil, is told what takes long, before it begins.
	Progress func(string)
}

// PulsarService is a running Pulsar standalone: a broker with an embedded bookie and metadata store.
type PulsarService struct {
	*Service
	security *Security
}

//go:embed standalone.conf
var standaloneConf string

//go:embed log4j2.xml
var log4jConf string

// addOpens are the packages of the Java runtime that Pulsar and Netty reach into.
var addOpens = []string{
	"java.base/java.io", "java.base/java.lang", "java.base/java.nio", "java.base/java.util.zip",
	"java.base/jdk.internal.loader", "java.base/jdk.internal.misc", "java.base/jdk.internal.platform", "java.base/sun.net",
	"java.management/sun.management", "jdk.management/com.sun.management.internal",
}

// Indexes into the leased ports.
const (
	brokerPort = iota
	webPort
	brokerTLSPort
	webTLSPort
	portCount
)

// StartPulsar fetches Pulsar when it is not cached, starts it, and waits until the namespace public/default is there.
// ctx bounds that, not the life of the service: Close ends it. Errors are ErrUnavailable when it cannot run on
// this machine.
func StartPulsar(ctx context.Context, o PulsarOptions) (*PulsarService, error) {
	// The broker makes a URI of the folder's name and does not escape a space in it.
	if base := os.TempDir(); strings.ContainsAny(base, " %?#") {
		return nil, fmt.Errorf("%w: Pulsar cannot keep data below %q: set TMPDIR to a folder without spaces and %%?# in its path", ErrUnavailable, base)
	}
	lib, err := pulsarJars.fetch(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	java, err := findJava()
	if err != nil {
		return nil, err
	}
	s, err := open("Pulsar", portCount)
	if err != nil {
		return nil, err
	}
	p := &PulsarService{Service: s}
	if err := p.configure(o); err != nil {
		s.Close()
		return nil, err
	}
	s.command = func() *exec.Cmd {
		options := []string{
			// The first compiler tier alone: a start takes 5.6 s of processor time, 9 to 10 s with all tiers, and the
			// first 500,000 messages of 1 KiB cost 5 µs each rather than 12, since the optimizing compiler is busy
			// all the while. (A class archive would save another 1.5 s of each start; making it costs 14 s and
			// 80 MB, so there is none.)
			"-XX:TieredStopAtLevel=1",
			"-Xms64m", "-Xmx192m", "-XX:MaxDirectMemorySize=192m",
			"-Dio.netty.tryReflectionSetAccessible=true", "-Dio.netty.leakDetectionLevel=disabled",
			"-Dpulsar.allocator.exit_on_oom=true", "-Dlog4j2.configurationFile=log4j2.xml",
		}
		for _, module := range addOpens {
			options = append(options, "--add-opens="+module+"=ALL-UNNAMED")
		}
		// Names relative to the scratch folder.
		return s.java(java, options, lib.classPath(), "org.apache.pulsar.PulsarStandaloneStarter",
			"-c", "standalone.conf", "--metadata-dir", "metadata", "--bookkeeper-dir", "bookkeeper",
			"--no-functions-worker", "--no-stream-storage", "--advertised-address", "127.0.0.1")
	}
	s.probe = func(ctx context.Context) error {
		// Created last of all. The token is needed: without it the web server refuses early, and the broker
		// may still fail after that.
		_, err := p.Admin(ctx, http.MethodGet, "/admin/v2/namespaces/public/default", nil)
		return err
	}
	if err := s.Start(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return p, nil
}

// configure writes the broker's files into the scratch folder.
func (p *PulsarService) configure(o PulsarOptions) error {
	added := map[string]string{
		"brokerServicePort": fmt.Sprint(p.ports.ports[brokerPort]),
		"webServicePort":    fmt.Sprint(p.ports.ports[webPort]),
		// The bookie takes the name of an interface, not an address; without one it listens everywhere.
		"listeningInterface": "lo",
	}
	if runtime.GOOS != "linux" {
		added["listeningInterface"] = "lo0"
	}
	if o.Secure {
		security, err := newSecurity(p.scratch.path(securityDir))
		if err != nil {
			return err
		}
		p.security = security
		added["brokerServicePortTls"] = fmt.Sprint(p.ports.ports[brokerTLSPort])
		added["webServicePortTls"] = fmt.Sprint(p.ports.ports[webTLSPort])
		for k, v := range security.conf() {
			added[k] = v
		}
	}
	for k, v := range o.Conf {
		added[k] = v
	}
	if err := os.WriteFile(p.scratch.path("standalone.conf"), []byte(mergeConf(standaloneConf, added)), 0o600); err != nil {
		return fmt.Errorf("writing the broker's configuration: %w", err)
	}
	if err := os.WriteFile(p.scratch.path("log4j2.xml"), []byte(log4jConf), 0o600); err != nil {
		return fmt.Errorf("writing the broker's log configuration: %w", err)
	}
	return nil
}

// mergeConf sets keys in a file of key=value lines. A key never occurs twice: broker and bookie
// read the file with different libraries, and need not choose the same of two values.
func mergeConf(conf string, set map[string]string) string {
	var b strings.Builder
	for line := range strings.Lines(conf) {
		key, _, ok := strings.Cut(line, "=")
		if _, replaced := set[strings.TrimSpace(key)]; ok && replaced && !strings.HasPrefix(line, "#") {
			continue
		}
		b.WriteString(line)
	}
	for _, key := range sortedKeys(set) {
		fmt.Fprintf(&b, "%s=%s\n", key, set[key])
	}
	return b.String()
}

// ServiceURL returns the broker's address for clients: pulsar://127.0.0.1:port. It stays the same over restarts.
func (p *PulsarService) ServiceURL() string {
	return fmt.Sprintf("pulsar://127.0.0.1:%d", p.ports.ports[brokerPort])
}

// AdminURL returns the address of the admin API: http://127.0.0.1:port.
func (p *PulsarService) AdminURL() string {
	return fmt.Sprintf("http://127.0.0.1:%d", p.ports.ports[webPort])
}

// ServiceURLTLS returns the broker's TLS address: pulsar+ssl://127.0.0.1:port; "" unless Secure was asked for.
func (p *PulsarService) ServiceURLTLS() string {
	if p.security == nil {
		return ""
	}
	return fmt.Sprintf("pulsar+ssl://127.0.0.1:%d", p.ports.ports[brokerTLSPort])
}

// Security returns what clients of a Secure broker need; nil for any other.
func (p *PulsarService) Security() *Security { return p.security }

// AdminError is returned when the admin API answers with a status outside 2xx.
type AdminError struct {
	Method, Path string
	Status       int
	Body         string
}

func (e *AdminError) Error() string {
	return fmt.Sprintf("%s %s: status %d: %s", e.Method, e.Path, e.Status, e.Body)
}

// Admin calls the broker's admin API, as its superuser where there is one, and returns the answer's body. path begins
// with /admin/v2/. A body of type string or []byte is sent as it is, nil sends none, and anything else goes as
// JSON. Errors are *AdminError when the broker refuses.
func (p *PulsarService) Admin(ctx context.Context, method, path string, body any) ([]byte, error) {
	var content []byte
	switch b := body.(type) {
	case nil:
	case string:
		content = []byte(b)
	case []byte:
		content = b
	default:
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encoding the body of %s %s: %w", method, path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, p.AdminURL()+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if p.security != nil {
		req.Header.Set("Authorization", "Bearer "+p.security.AdminToken)
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, &AdminError{Method: method, Path: path, Status: answer.StatusCode, Body: string(text)}
	}
	return text, nil
}

// CreatePartitionedTopic makes a persistent topic with the given number of partitions. topic is
// "tenant/namespace/name", with or without "persistent://" before it; tenant and namespace must exist
// (public/default does).
func (p *PulsarService) CreatePartitionedTopic(ctx context.Context, topic string, partitions int) error {
	name := strings.TrimPrefix(topic, "persistent://")
	if strings.Count(name, "/") != 2 {
		return fmt.Errorf("creating topic %q: write it as tenant/namespace/name", topic)
	}
	if _, err := p.Admin(ctx, http.MethodPut, "/admin/v2/persistent/"+name+"/partitions", partitions); err != nil {
		return fmt.Errorf("creating topic %s: %w", topic, err)
	}
	return nil
}

// CreateNamespace makes the namespace "tenant/namespace". The tenant public exists.
func (p *PulsarService) CreateNamespace(ctx context.Context, namespace string) error {
	if _, err := p.Admin(ctx, http.MethodPut, "/admin/v2/namespaces/"+namespace, nil); err != nil {
		return fmt.Errorf("creating namespace %s: %w", namespace, err)
	}
	return nil
}
